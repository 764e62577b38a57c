-- Claims: scheduled, due -> running. Levels high to low, in a level by availableAt.
-- @include lib/advance
-- @include lib/commit
local BUDGET = 4194304 -- bytes of payloads one call gives back; what goes over is fetched by the worker
local spent

each_call(function()
  spent = 0
end)

-- a stored payload as a claim gives it: "=<text>" where it fits the budget, else "@<event id>"
local function payload_of(run, stored)
  if sub(stored, 1, 1) == '@' and spent < BUDGET then
    local _, value = event_at(run, sub(stored, 2))
    if value then
      local _, _, payload = open_event(value)
      stored = '=' .. payload
    end
  end
  if spent + #stored > BUDGET and sub(stored, 1, 1) == '=' and #stored > INLINE + 1 then
    return nil
  end
  spent = spent + #stored
  return stored
end

local begin_step, start_step, claim_again
do
  local function claim_outputs(run, planned, claimed)
    local fields, fresh = {}, {} -- fresh: outputs of this call
    for i = 3, run.fields and run.field_count or 0, 2 do
      fresh[run.fields[i]] = run.fields[i + 1]
    end
    for i, dependency in ipairs(planned.deps) do
      fields[i] = output_fields[dependency]
    end
    for first = 1, #fields, 1000 do
      local stored = call('HMGET', run.key, unpack(fields, first, min(first + 999, #fields)))
      for k = 1, min(1000, #fields - first + 1) do
        local dependency = planned.deps[first + k - 1]
        local text = fresh[output_fields[dependency]] or stored[k]
        local other = run.steps[dependency]
        if text and not (other and other.status ~= 'c') then
          claimed[#claimed + 1] = dependency
          claimed[#claimed + 1] = payload_of(run, text) or text
        end
      end
    end
  end

  -- {run, step, plan, attempt, input, then name and output of each dependency that completed}
  local function what_it_gives(run, name, attempt)
    local planned, input = plan_step(run.plan, name), run.input and (payload_of(run, run.input) or run.input) or ''
    local claimed = { run.id, name, run.number, attempt, input }
    if planned and #planned.deps > 0 then
      claim_outputs(run, planned, claimed)
    end
    return claimed
  end

  -- what a claim gave, once more; nothing where its lease is no longer current
  function claim_again(id, name, lease)
    local run = load_run(id, name)
    local s = run and run.steps[name]
    return s and LIVE[run.status] and s.status == 'r' and s.lease == lease and what_it_gives(run, name, s.attempt) or nil
  end

  -- envelopes that are the same for every run of a plan in its first attempt are made once a call
  local function start_run(run)
    local plan, has_input = run.plan, run.input and true or false
    local known = plan and run.attempt == 1 and (has_input and plan.started_with or plan.started_without)
    local data = known or map(4, pair('pl', run.number) .. pair('w', run.attempt)
      .. pair('hs', plan and plan.schema and true or false) .. pair('hi', has_input))
    if plan and run.attempt == 1 then
      plan[has_input and 'started_with' or 'started_without'] = data
    end
    local at = emit(run, 'WorkflowStarted', '', data)
    run_started(run, at)
    if plan and plan.schema then
      emit(run, 'WorkflowInputValidation', '', map(3, pair('w', run.attempt) .. '\162hc\195\162ok\195'))
    end
  end

  -- answers with the attempt that it is
  function begin_step(run, name, worker_pairs, worker_count, slot_pairs)
    local s, planned = run.steps[name], plan_step(run.plan, name)
    if run.status == 'p' then
      start_run(run)
    end
    local attempt = s.attempt > 0 and s.attempt or 1
    local head = planned and attempt == 1 and planned.start
    if not head then
      head = pair('a', attempt) .. '\162dp' .. (planned and planned.dp or '\144')
      if planned and attempt == 1 then
        planned.start = head
      end
    end
    local at = emit(run, 'StepStarted', name, MAPS[2 + worker_count] .. head .. worker_pairs .. (slot_pairs or ''))
    if s.available then
      count_bucket('w', bucket_of(max(0, at - s.available)))
    end
    started(run, name, s, attempt, now)
    return attempt
  end

  function start_step(run, name, worker_pairs, worker_count, slot_pairs)
    return what_it_gives(run, name, begin_step(run, name, worker_pairs, worker_count, slot_pairs))
  end
end

-- levels of the given queues that have something due, most urgent first; and the next time one will have
local function due_levels(serves)
  local all = call('ZRANGE', prefix .. 'levels', '0', '999', 'WITHSCORES')
  local due, next_due = {}, nil
  for i = 1, #all, 2 do
    local queue, level = match(all[i], '^(.*):(%-?%d+)$')
    if serves['*'] or serves[queue] then
      local at = tonumber(all[i + 1])
      if at <= now then
        due[#due + 1] = { queue = queue, rank = tonumber(level), at = at, set = prefix .. 'scheduled:' .. all[i] }
      elseif not next_due or at < next_due then
        next_due = at
      end
    end
  end
  table.sort(due, function(a, b)
    if a.rank ~= b.rank then
      return a.rank > b.rank
    end
    return a.at < b.at
  end)
  return due, next_due
end

-- calls take_light(id, step, member), or take(run, step) where that cannot, for queue members until `want` are taken; answers whether due
-- members may be left
local function take_due(due, want, take_light, take)
  local taken = 0
  for _, level in ipairs(due) do
    local offset = 0
    repeat
      local ask = want - taken
      local members = call('ZRANGE', level.set, '-inf', now_text, 'BYSCORE', 'LIMIT', offset, ask)
      for i = 1, #members do
        local member = members[i]
        local bar = find(member, '|', 1, true)
        local id, name = sub(member, 1, bar - 1), sub(member, bar + 1)
        if take_light(id, name, member) then
          taken = taken + 1
        else
          local run = load_run(id, name)
          if not run then
            torn = true
            return true
          elseif run.dropped then -- its turn comes again
          elseif LIVE[run.status] and run.steps[name].status == 's' then
            run.steps[name].member = member
            take(run, name)
            taken = taken + 1
          elseif not LIVE[run.was_status] then
            -- an ended run whose members are still being taken away
            take_out(level_of(level.queue, level.rank), member)
          end
        end
      end
      offset = offset + #members
      if taken >= want then
        return true
      end
    until #members < ask
  end
  return false
end
