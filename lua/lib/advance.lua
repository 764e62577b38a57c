-- What follows the end of a step, in the same call: dependents that became ready are scheduled, skips cascade, and when nothing is
-- left the run ends. There is no moment at which a crash strands a run.
-- @include lib/emit
-- @include lib/rollup
local FAN_OUT = 500 -- steps scheduled by one call; the rest go by `expand`
local fresh         -- steps that this call scheduled and that are due, as { run, step }, or the light run of the step
local stopped_runs  -- runs that ended with steps scheduled or running

each_call(function()
  fresh, stopped_runs = {}, {}
end)

local function schedule(run, name, reason, attempt, delay, since, more, more_pairs)
  local count, pairs_text = 2 + (more or 0), pair('a', attempt) .. '\161r\161' .. reason .. (more_pairs or '')
  if delay > 0 then
    count, pairs_text = count + 1, pairs_text .. pair('dl', delay)
  end
  if since then
    count, pairs_text = count + 1, pairs_text .. pair('un', since)
  end
  local at = emit(run, 'StepScheduled', name, map(count, pairs_text))
  scheduled(run, name, step_of(run, name), attempt, at + delay, nil, since)
  run.fanned = (run.fanned or 0) + 1
  if delay == 0 then
    fresh[#fresh + 1] = { run, name }
  end
end

local end_envelope, end_run
do
  -- members of an ended run leave the sets in this call where they are few, else by `expand`
  local function clear_members(run)
    if run.active > 0 then
      if run.plan and run.plan.n > FAN_OUT then
        rare_of(run).expand = true
      else
        load_steps(run, all_steps(run))
        stopped_runs[#stopped_runs + 1] = run
      end
    end
  end

  local FIRST = pair('w', 1)
  local RUN_END = { WorkflowCompleted = 'c', WorkflowFailed = 'f', WorkflowCancelled = 'x' }

  -- envelope of a run's end, and how long it took is counted
  function end_envelope(attempt, created, at, count, pairs_text)
    local took = max(0, at - tonumber(created))
    count_bucket('r', bucket_of(took))
    return MAPS[2 + count] .. (attempt == 1 and FIRST or pair('w', attempt)) .. '\161d' .. packed(took) .. pairs_text
  end

  function end_run(run, kind, count, pairs_text)
    local at = now + run.seq
    emit(run, kind, '', end_envelope(run.attempt, run.created, at, count, pairs_text))
    run_ended(run, at, RUN_END[kind])
    clear_members(run)
  end
end

local conclude
do
  -- the error of the step that failed first: from this call, else from its event
  local function first_failure(run)
    local failure = run.rare.failure
    if failure then
      return failure.step, failure.error, failure.reason
    end
    local id = run.rare.first_failure or call('HGET', run.key, 'f') or '0-0'
    local _, value = event_at(run, id)
    if not value then
      return nil, packed({ message = 'a step failed' }), 'step-failed'
    end
    local name, d = open_event(value)
    return name, cmsgpack.pack(d.e), d.f
  end

  local function fail_run(run)
    local step, error_text, reason = first_failure(run)
    local why = reason == 'worker-crash' and 'worker-crash' or 'step-failed'
    local pairs_text = '\161e' .. error_text .. pair('c', run.done) .. pair('f', why)
    if step then
      return end_run(run, 'WorkflowFailed', 4, pairs_text .. pair('s', step))
    end
    end_run(run, 'WorkflowFailed', 3, pairs_text)
  end

  function conclude(run)
    if not LIVE[run.status] or run.rare.expand then
      return
    end
    local stop = not run.plan or run.plan.on_error ~= 'finish'
    if run.failed and (stop or run.open == 0) then
      fail_run(run)
    elseif run.failed and run.active == 0 and (run.rare.expanded or not call('ZSCORE', prefix .. 'expand', run.id)) then
      fail_run(run)
    elseif run.open == 0 then
      local plan = run.plan
      if plan and not plan.total then
        plan.total = pair('n', plan.n)
      end
      end_run(run, 'WorkflowCompleted', 1, plan and plan.total or pair('n', max(1, run.done)))
    end
  end
end

-- a dependency that the step cannot do without was skipped, and the cascade did not reach it
local function skipped_need(run, name)
  local planned = plan_step(run.plan, name)
  if planned then
    load_steps(run, planned.deps)
    for i, dependency in ipairs(planned.deps) do
      if sub(planned.kinds, i, i) == 'r' and run.steps[dependency].status == 'k' then
        return dependency
      end
    end
  end
end

local function cascade(run, name, from)
  local s = run.steps[name]
  local attempt = max(1, s.attempt)
  emit(run, 'StepSkipped', name, map(5, pair('a', attempt) .. pair('d', 0) .. pair('k', 'cascade')
    .. pair('r', "dependency '" .. from .. "' was skipped") .. pair('cf', from)))
  skipped(run, name, s, attempt)
end

local advance
do
  local READY = map(2, pair('a', 1) .. '\161r\161d')

  -- a dependency was satisfied: the first attempt, at once
  local function schedule_ready(run, name)
    local s = run.steps[name]
    local at = emit(run, 'StepScheduled', name, READY)
    scheduled(run, name, s, 1, at)
    run.fanned = (run.fanned or 0) + 1
    fresh[#fresh + 1] = { run, name }
  end

  function advance(run, name)
    local done = plan_step(run.plan, name)
    if not done or #done.next == 0 then
      return conclude(run)
    end
    local ended, i = { name }, 1
    while ended[i] and LIVE[run.status] do
      local from = ended[i]
      local s, planned = run.steps[from], plan_step(run.plan, from)
      if planned and (s.status == 'c' or s.status == 'k') then
        for k, dependent in ipairs(planned.next) do
          local other = run.steps[dependent]
          if other.status ~= 'p' then -- it ran before: nothing follows from this end
          elseif s.status == 'k' and sub(planned.edges, k, k) == 'r' then
            if #ended <= FAN_OUT then
              cascade(run, dependent, from)
              ended[#ended + 1] = dependent
            else
              rare_of(run).expand = true
            end
          elseif other.unmet == 0 then
            if (run.fanned or 0) < FAN_OUT then
              schedule_ready(run, dependent)
            else
              rare_of(run).expand = true
            end
          end
        end
      end
      i = i + 1
    end
    conclude(run)
  end
end
