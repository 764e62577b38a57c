-- The reducer: what each event does to the tables of its run. The Python twin is redisflow/model/derived.py; tests hold the two
-- together. A reducer gets (run, step name, time, fields of the envelope, payload, ms and seq of the stream id). Counters move only
-- when a status moves, so a stale or repeated event changes nothing it should not.
-- @include lib/run
local apply = {}

local function step_of(run, name)
  local s = run.steps[name]
  if s == nil then
    load_chunk(run, { name }, 1, 1)
    s = run.steps[name]
  end
  if s.unplanned and not s.counted and s.attempt == 0 and s.status == 'p' then
    run.open, s.counted = run.open + 1, true
  end
  s.dirty = true
  return s
end

-- a dependency in this status counts as done for an edge of this kind: r required, o optional, a after
local function met(status, kind)
  return status == 'c' or (status == 'k' and kind ~= 'r')
end

local function move(run, name, s, to)
  local from = s.status
  if from == to then
    return
  end
  s.status = to
  run.active = run.active + (ACTIVE[to] and 1 or 0) - (ACTIVE[from] and 1 or 0)
  run.open = run.open + (ENDED[from] and 1 or 0) - (ENDED[to] and 1 or 0)
  run.done = run.done + (to == 'c' and 1 or 0) - (from == 'c' and 1 or 0)
  local planned = ENDED[from] ~= ENDED[to] and plan_step(run.plan, name)
  if planned and #planned.next > 0 then
    load_steps(run, planned.next)
    for i, dependent in ipairs(planned.next) do
      local kind = sub(planned.edges, i, i)
      local before, after = met(from, kind), met(to, kind)
      if before ~= after then
        local other = run.steps[dependent]
        other.unmet, other.dirty = other.unmet + (after and -1 or 1), true
      end
    end
  end
end

local function end_lease(s, kind)
  if s.lease ~= 0 then
    s.ended, s.kind, s.lease = s.lease, kind, 0
  end
end

function apply.StepScheduled(run, name, at, d)
  local s = step_of(run, name)
  end_lease(s, 'l')
  local level = d.p or run.priority
  s.attempt, s.level, s.since = d.a, math.max(-100, math.min(100, level)), d.un or 0
  s.available = d.v or at + (d.dl or 0)
  move(run, name, s, 's')
end

function apply.StepStarted(run, name, at, d, payload, ms)
  local s = step_of(run, name)
  s.attempt, s.lease = d.a, ms
  move(run, name, s, 'r')
end

function apply.StepCompleted(run, name, at, d, payload, ms, seq)
  local s = step_of(run, name)
  if d.a < s.attempt then
    return
  end
  end_lease(s, 'c')
  run.set['o:' .. name] = #payload <= INLINE and '=' .. payload or format('@%.0f-%d', ms, seq)
  move(run, name, s, 'c')
end

function apply.StepFailed(run, name, at, d, payload, ms, seq)
  local s = step_of(run, name)
  if d.a < s.attempt then
    return
  end
  end_lease(s, 'f')
  if d.f ~= 'worker-crash' then
    s.failures = s.failures + 1
  end
  if d.t then
    if run.failed == '-' then
      run.failed = format('%.0f-%d', ms, seq)
    end
    move(run, name, s, 'f')
  end
end

function apply.StepSkipped(run, name, at, d)
  local s = step_of(run, name)
  end_lease(s, 'k')
  s.attempt = math.max(s.attempt, d.a)
  move(run, name, s, 'k')
end

function apply.StepReclaimed(run, name)
  local s = step_of(run, name)
  end_lease(s, 'r')
  s.crashes = s.crashes + 1
end

function apply.RunSubmitted(run, name, at, d, payload, ms, seq)
  if run.submitted then
    return
  end
  run.submitted = true
  if run.status == '-' then
    run.status = 'p'
  end
  run.number, run.plan, run.slug = d.pl or 0, plan_of(d.pl or 0), d.wf
  run.open = run.open + (run.plan and run.plan.n or 0)
  run.priority, run.created = d.p or 0, at
  run.available = d.v or at + (d.dl or 0)
  if d.tm then
    run.timeout = format('%.0f', d.tm)
    run.deadline = run.available + d.tm
  end
  if payload ~= '' then
    run.input = #payload <= INLINE and '=' .. payload or format('@%.0f-%d', ms, seq)
    run.set.i = run.input
  end
  if run.slug then
    run.set.w = run.slug
  end
end

function apply.WorkflowStarted(run, name, at, d)
  if run.status == '-' then -- a history without its submission
    run.slug, run.created = d.wf, at
    run.set.w = run.slug
  end
  run.status, run.started = 'r', format('%.0f', at - run.created)
end

local function run_end(status)
  return function(run, name, at)
    run.status, run.ended = status, format('%.0f', at - run.created)
  end
end

apply.WorkflowCompleted = run_end('c')
apply.WorkflowFailed = run_end('f')
apply.WorkflowCancelled = run_end('x')

function apply.WorkflowRetryStarted(run, name, at, d)
  load_steps(run, all_steps(run))
  for _, s in pairs(run.steps) do
    if s.failures + s.crashes > 0 then
      s.failures, s.crashes, s.dirty = 0, 0, true
    end
  end
  run.status, run.attempt, run.failed = 'p', d.w, '-'
  if run.timeout ~= '-' then
    run.deadline = at + tonumber(run.timeout)
  end
end
