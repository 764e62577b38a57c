-- Light runs: those that a call takes along an edge. Here phase 1, which reads the texts of run and step, holds the fence and finds the
-- edge; lib/commit_light writes them. Where a call comes to such a run once more, it is read into tables after all, and what was done
-- to it is done again by the reducers.
-- @include lib/edge
-- Of a light run, text, field and other: the header, the field of its step and that of the step which waits for it, as read (of a submission
-- other is its envelope); value and other_value: of its first event, and of the StepStarted of that other step; queued: the member
-- that was claimed; place: its number in a submit; bucket: of how long the step waited or took. status is false: that tells it from a run.
-- @slots light: status attempt ended available id key stream edge field other
-- @slots light: value payload_text output created text queued other_value stored_input place fresh_place bucket
local light_list -- those of a call; how many stands at 0
local submit_light, complete_light, claim_light, claim_fresh, give_up
do
  local run_prefix

  each_call(function()
    lights, light_list, run_prefix = {}, { [0] = 0 }, prefix .. 'run:'
  end)

  local function note(light)
    local n = light_list[0] + 1
    light_list[0], light_list[n], lights[light.id] = n, light, light
  end

  function submit_light(edge, id, envelope, input, k)
    local key = run_prefix .. id
    local light = {
      false, 1, false, false, id, key, key .. ':events', edge, false, envelope, '\0' .. envelope .. input, input,
      input ~= '' and kept(input, now, k), format('%016d', now + k), false, false, false, false, k, 0, 0,
    }
    note(light)
    return light
  end

  -- what was read is left to load_run
  local function leave(id, name, got)
    left_id, left_step, left = id, name, got
  end

  -- what can follow the end of a step; false where that is more than an edge says
  local function find_fork(head, name)
    local fork = head.ends[name]
    if fork == nil then
      local planned = plan_step(head.of_plan, name)
      fork = planned and #planned.next < 2 and { by_step = {}, follower = planned.next[1] }
      if fork and fork.follower then
        fork.follower_field = step_fields[fork.follower]
      end
      head.ends[name] = fork
    end
    return fork
  end

  -- nil where the outcome has to go by the reducers
  function complete_light(id, name, lease, data, payload, took)
    if runs[id] ~= nil or lights[id] then
      return nil
    end
    -- what was needed of the runs before is read at once: the field of the step that follows, and the input for its claim
    local key, guess, got = run_prefix .. id, here.followers[name], nil
    if guess then
      got = call('HMGET', key, 'h', step_fields[name], guess, 'i')
    else
      got = call('HMGET', key, 'h', step_fields[name])
    end
    local text, field, other = got[1], got[2], nil
    local head = text and field and heads[sub(text, 1, RUN_STATE)]
    local fork = head and (head.ends[name] or find_fork(head, name))
    if not fork then
      if guess then
        leave(id, name, { text, field, got[4] })
      elseif text then
        here.followers[name] = 'i'
      end
      return nil
    elseif (lease or 0) == 0 or sub(field, STEP_STATE + 1, LEASE_END) ~= doubles[lease] then
      return nil
    end
    local edge
    if fork.follower then
      if guess ~= fork.follower_field then
        here.followers[name] = fork.follower_field
        got = call('HMGET', key, 'h', 'h', fork.follower_field, 'i')
      end
      other = got[3]
      local by_state = fork.by_step[sub(field, 1, STEP_STATE)]
      edge = by_state and by_state[other and sub(other, 1, STEP_STATE) or '']
    else
      edge = fork.by_step[sub(field, 1, STEP_STATE)]
      edge = edge and edge['']
    end
    if edge == nil then
      edge = end_edge(fork, id, name, text, field, other)
    end
    if not edge then
      return nil
    end
    local light = {
      false, 1, false, false, id, key, key .. ':events', edge, field, other, name .. '\0' .. data .. payload, payload,
      kept(payload, now, 0), edge.ends and sub(text, RUN_STATE + 1, CREATED_END), text, false, false, fork.follower and got[4], 0, 0,
      took,
    }
    note(light)
    if edge.scheduled then
      light.fresh_place = #fresh + 1
      fresh[light.fresh_place] = light
    end
    return OK
  end

  -- what a claim gives; nil where it has to go by the reducers
  function claim_light(id, name, member, pairs_text, slot_pairs)
    if runs[id] ~= nil or lights[id] then
      return nil
    end
    local key = run_prefix .. id
    local got = call('HMGET', key, 'h', step_fields[name], 'i')
    local text, field, input = got[1], got[2], got[3]
    local head = text and field and heads[sub(text, 1, RUN_STATE)]
    if not head then
      leave(id, name, got)
      return nil
    end
    local by_state = (input and head.starts or head.blank_starts)[name]
    local edge = by_state and by_state[sub(field, 1, STEP_STATE)]
    if edge == nil then
      edge = claim_edge(head, id, name, text, field, input and true)
    end
    if not edge then
      leave(id, name, got)
      return nil
    end
    local light = {
      false, 1, false, false, id, key, key .. ':events', edge, field, false, edge.starting .. pairs_text .. slot_pairs, false, false,
      edge.into and sub(text, RUN_STATE + 1, CREATED_END), text, member, false, input, 0, 0,
      bucket_of(max(0, now + edge.size / 2 - 2 - struct_unpack('<d', field, STEP_STATE + 1))),
    }
    note(light)
    local claimed = { id, name, edge.number_of_plan, edge.turns, input and (payload_of(light, input) or input) or '' }
    local needed = edge.needs
    if needed then
      local output = call('HGET', key, output_fields[needed])
      if output then
        claimed[6], claimed[7] = needed, payload_of(light, output) or output
      end
    end
    return claimed
  end

  -- likewise of the step that this call scheduled in the run
  function claim_fresh(light, pairs_text, slot_pairs)
    local before = light.edge
    local edge = onward_edge(before, light.id, light.text)
    if not edge then
      return nil
    end
    local claim, input = edge.claim, light.stored_input
    local claimed = {
      light.id, edge.follower, claim.number_of_plan, claim.turns, input and (payload_of(light, input) or input) or '',
      before.name, payload_of(light, light.output) or light.output,
    }
    light.edge, light.other_value = edge, claim.starting .. pairs_text .. slot_pairs
    return claimed
  end

  -- pairs of a worker and a slot in a StepStarted
  local function pairs_of(value, claim)
    return sub(value, #claim.starting + 1)
  end

  -- what was done to it in this call, by the reducers
  local function do_again(run, light)
    local edge, value = light.edge, light.value
    if edge.starting then
      begin_step(run, edge.name, pairs_of(value, edge), 3, '')
      run.steps[edge.name].member = light.queued
      return
    end
    local payload = light.payload_text
    complete(run, edge.name, sub(value, #edge.name + 2, #value - #payload), payload, light.bucket)
    if edge.claim then
      begin_step(run, edge.follower, pairs_of(light.other_value, edge.claim), 3, '')
    end
  end

  -- a run whose part of the call raised, light or not
  function give_up(id, why)
    lights[id] = nil
    runs[id] = runs[id] or new_run(id)
    drop(runs[id], why)
  end

  function make_heavy(light)
    local edge = light.edge
    lights[light.id] = nil
    local run = load_run(light.id, edge.name)
    do_again(run, light)
    if edge.scheduled then
      fresh[light.fresh_place] = table.remove(fresh)
    end
    return run
  end
end
