-- Edges: what a transition makes of every run that is in the same state. A state is what the header of a run, or the field of a step,
-- holds before its times, and of a plan there are few. The first run that comes to a state is led on by the reducers, on a copy; what
-- they made of it is kept as an edge: the states behind, the events with room for what differs, the sets it moves between. Runs that
-- come after it go along the edge as texts (lib/light), without a table of their fields and without a fold.
-- What has no edge goes by the reducers as ever: failures, skips, steps with many dependents or dependencies, and runs with several
-- steps scheduled or running, which a call mostly comes to more than once.
-- @include lib/claim
-- @include lib/outcome
-- @include lib/submission
local MOST_EDGES = 1000 -- of a partition; then all are learnt anew
local MOST_ROOTS = 8 -- of a plan whose submissions have an edge
local NO_TIME = struct_pack('<d', 0)
local NO_TIMES = NO_TIME .. NO_TIME .. NO_TIME
local NEVER_RAN = NO_TIME .. '-' -- how the field of a step ends whose no lease has ended
local heads -- by state of a run: what leads on from it, or false; of this call
local doubles -- numbers as a hash holds them
local submit_edge, claim_edge, end_edge, onward_edge, handed_edge
do
  local DOUBLES = { __index = function(texts, number)
    local text = struct_pack('<d', number)
    texts[number] = text
    return text
  end }

  -- edges are of the plan that they were learnt from: after a failover its number may stand for another
  local HEADS = { __index = function(known, state)
    local status, failed, number, _, _, _, active = struct_unpack('<c1c1IbHII', state)
    local plan = plan_of(number)
    local head = false
    if plan and LIVE[status] and failed == '-' and active == 1 then
      head = here.heads[state]
      if not head or head.of_plan ~= plan then
        head = { of_plan = plan, starts = {}, blank_starts = {}, ends = {} }
        here.heads[state] = head
      end
    end
    known[state] = head
    return head
  end }

  each_call(function()
    heads, doubles = setmetatable({}, HEADS), setmetatable({}, DOUBLES)
    if here.edges > MOST_EDGES then
      here.heads, here.submissions, here.followers, here.edges = {}, {}, {}, 0
    end
  end)

  -- acts on a run without what follows for the call: the steps it scheduled are answered, not noted
  local function aside(act, ...)
    local call_fresh, call_buckets, call_spent = fresh, buckets, spent
    fresh, buckets = {}, { w = {}, s = {}, r = {} }
    local ok, result = pcall(act, ...)
    local became = fresh
    fresh, buckets, spent = call_fresh, call_buckets, call_spent
    if not ok then
      error(result, 0)
    end
    return result, became
  end

  local function run_state(run)
    return sub(header_text(run), 1, RUN_STATE)
  end

  local function step_state(s)
    return sub(step_text(s), 1, STEP_STATE)
  end

  -- what all edges have: the entry of the stream with places for its key and id, the states behind, and the indexes a run moves between
  local function new_edge(run, to_step)
    local slug, was, is = slug_of(run), run.was_status, run.status
    local moves, index, kinds = was ~= is, index_of(slug), run.events[1]
    for i = 3, run.count, 2 do
      kinds = kinds .. '+' .. run.events[i]
    end
    return {
      slug = slug, kinds = kinds, entry = { false, false, unpack(run.events, 1, run.count) }, size = run.count + 2, to_run = run_state(run),
      to_step = to_step, out_of = moves and was and index[was], into = moves and index[is], group = {}, used = 0,
    }
  end

  -- of a submission with nothing but a plan and a priority
  function submit_edge(d)
    if d.ih or d.tg or d.tm or d.wf or d.v or d.dl then
      return false
    end
    local plan, key = plan_of(d.pl), d.pl * 1000 + (d.p or 0)
    local edge = here.submissions[key]
    if edge == nil or edge and edge.of_plan ~= plan then
      edge, here.edges = false, here.edges + 1
      if not plan.fan and #plan.roots <= MOST_ROOTS then
        local run = aside(submission, '', d, '', '', 0)
        edge = new_edge(run)
        edge.of_plan, edge.roots = plan, {}
        for i, name in ipairs(plan.roots) do
          local s = run.steps[name]
          edge.roots[i] = {
            name = name, tail = '|' .. name, field_name = step_fields[name], to_step = step_state(s), queue = queue_of(run, name),
            level_set = level_of(queue_of(run, name), s.level),
          }
        end
      end
      here.submissions[key] = edge
    end
    return edge
  end

  -- scheduled -> running
  function claim_edge(head, id, name, text, field, has_input)
    local by_state = child(has_input and head.starts or head.blank_starts, name)
    local state = sub(field, 1, STEP_STATE)
    local edge = by_state[state]
    if edge == nil then
      local planned = plan_step(head.of_plan, name)
      edge, here.edges = false, here.edges + 1
      if planned and #planned.deps < 2 and sub(state, 1, 1) == 's' then
        local run, s = parse_run(id, prefix .. 'run:' .. id, text, has_input and '=', {}), parse_step(field)
        run.steps[name] = s
        local turns = aside(begin_step, run, name, '', 3, '')
        edge = new_edge(run, step_state(s))
        edge.name, edge.turns, edge.number_of_plan, edge.needs = name, turns, run.number, planned.deps[1]
        edge.starting, edge.level_set = run.events[run.count], level_of(queue_of(run, name), s.was_level)
      end
      by_state[state] = edge
    end
    return edge
  end

  -- whether all that the end of a step did to its run is that it ended the run, or scheduled the follower, or neither
  local function is_plain(run)
    local second = run.events[3]
    return run.rare == NONE and (run.count == 2 or run.count == 4 and (second == 'WorkflowCompleted' or second == 'StepScheduled'))
  end

  -- running -> completed, with what follows for the one dependent, whose field is `other`, or for the run
  function end_edge(fork, id, name, text, field, other)
    local by_state = child(fork.by_step, sub(field, 1, STEP_STATE))
    local key = other and sub(other, 1, STEP_STATE) or ''
    local edge = by_state[key]
    if edge == nil then
      edge, here.edges = false, here.edges + 1
      if sub(field, 1, 1) == 'r' then
        local run, s, follower = parse_run(id, prefix .. 'run:' .. id, text, nil, {}), parse_step(field), fork.follower
        run.steps[name] = s
        if follower then
          run.steps[follower] = other and parse_step(other) or new_step(run, follower)
        end
        local _, became = aside(complete, run, name, '', '', '')
        if is_plain(run) then
          edge = new_edge(run, step_state(s))
          edge.name, edge.turns, edge.ends = name, run.attempt, run.status == 'c'
          edge.total, edge.scheduled = run.plan.total, #became > 0
          local dependent = run.steps[follower]
          if dependent and dependent.dirty then
            edge.queue = queue_of(run, follower)
            edge.follower, edge.to_other, edge.level_set = follower, step_state(dependent), level_of(edge.queue, dependent.level)
          end
        end
      end
      by_state[key] = edge
    end
    return edge
  end

  -- an edge that schedules a step, with the claim of that step behind it; the step waits from the event number `from` on, a µs each
  local function with_claim(edge, claim, from)
    local both = {}
    for key, value in pairs(edge) do
      both[key] = value
    end
    both.entry, both.size = { unpack(edge.entry, 1, edge.size) }, edge.size + claim.size - 2
    for i = 3, claim.size do
      both.entry[edge.size + i - 2] = claim.entry[i]
    end
    both.to_run, both.claim, both.group, both.used = claim.to_run, claim, {}, 0
    both.kinds = edge.kinds .. '+' .. claim.kinds .. '+w' .. bucket_of(both.size / 2 - 2 - from)
    here.edges = here.edges + 1
    return both
  end

  function onward_edge(edge, id, was_text)
    local onward = edge.onward
    if onward == nil then
      local text = edge.to_run .. sub(was_text, RUN_STATE + 1)
      local field = edge.to_other .. doubles[now + 1] .. NEVER_RAN
      local head = heads[edge.to_run]
      local claim = head and claim_edge(head, id, edge.follower, text, field, true) -- of a run that goes on, with input or without
      onward = claim and with_claim(edge, claim, 1)
      if onward then
        onward.to_other = claim.to_step
      end
      edge.onward = onward
    end
    return onward
  end

  -- likewise of a submission with one root
  function handed_edge(edge, id, has_input)
    local which = has_input and 'handed' or 'blank_handed'
    local handed = edge[which]
    if handed == nil then
      local root, head = edge.roots[1], #edge.roots == 1 and heads[edge.to_run]
      local claim = head
        and claim_edge(head, id, root.name, edge.to_run .. format('%016d', now) .. NO_TIMES, root.to_step .. doubles[now] .. NEVER_RAN, has_input)
      handed = claim and with_claim(edge, claim, 0)
      if handed then
        handed.into, handed.roots = claim.into, { { field_name = root.field_name, tail = root.tail, to_step = claim.to_step } }
      end
      edge[which] = handed
    end
    return handed
  end
end
