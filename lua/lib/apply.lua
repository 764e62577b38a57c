-- The reducer: what each event does to the tables of its run. The Python twin is redisflow/model/derived.py; tests hold the two
-- together. Counters move only when a status moves, so a stale or repeated event changes nothing it should not. Transitions call the
-- local functions below with what they know; `apply` does the same for events that come as they are stored.
-- @include lib/run
local function step_of(run, name)
  local s = run.steps[name]
  if s == nil then
    load_chunk(run, { name }, 1, 1)
    s = run.steps[name]
  end
  if s.unplanned and not s.counted and s.attempt == 0 and s.status == 'p' then
    run.open, s.counted = run.open + 1, true
  end
  return s
end

local move
do
  -- a dependency in this status counts as done for an edge of this kind: r required, o optional, a after
  local function met(status, kind)
    return status == 'c' or (status == 'k' and kind ~= 'r')
  end

  function move(run, name, s, to)
    local from = s.status
    if from == to then
      return
    end
    s.status = to
    if ACTIVE[from] ~= ACTIVE[to] then
      run.active = run.active + (ACTIVE[to] and 1 or -1)
    end
    if from == 'c' or to == 'c' then
      run.done = run.done + (to == 'c' and 1 or -1)
    end
    if ENDED[from] == ENDED[to] then
      return
    end
    run.open = run.open + (ENDED[from] and 1 or -1)
    local planned = plan_step(run.plan, name)
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
end

local function end_lease(s, kind)
  s.dirty = true
  if s.lease ~= 0 then
    s.ended, s.kind, s.lease = s.lease, kind, 0
  end
end

-- a payload as the hash keeps it: its text where that is short, else where it stands in the stream
local function kept(payload, ms, seq)
  return #payload <= INLINE and '=' .. payload or format('@%d-%d', ms, seq)
end

local function scheduled(run, name, s, attempt, available, level, since)
  end_lease(s, 'l')
  s.attempt, s.available = attempt, available
  if since then
    set_field(run, 'u:' .. name, format('%d', since))
  end
  s.level = level and max(-100, min(100, level)) or run.priority
  if s.status == 'f' and run.failed then -- only in a copied past: a retry of the run has cleared it before
    run.failed, rare_of(run).first_failure = false, nil
    set_field(run, 'f', '')
  end
  move(run, name, s, 's')
end

local function started(run, name, s, attempt, lease)
  s.attempt, s.lease, s.dirty = attempt, lease, true
  move(run, name, s, 'r')
end

local function completed(run, name, s, payload, ms, seq)
  end_lease(s, 'c')
  set_field(run, output_fields[name], kept(payload, ms, seq))
  move(run, name, s, 'c')
end

local function failed(run, name, s, reason, terminal, ms, seq)
  end_lease(s, 'f')
  if reason ~= 'worker-crash' then
    s.failures = s.failures + 1
  end
  if terminal then
    if not run.failed then
      local id = format('%d-%d', ms, seq)
      run.failed, rare_of(run).first_failure = true, id
      set_field(run, 'f', id)
    end
    move(run, name, s, 'f')
  end
end

local function skipped(run, name, s, attempt)
  end_lease(s, 'k')
  s.attempt = max(s.attempt, attempt)
  move(run, name, s, 'k')
end

local function reclaimed(s)
  end_lease(s, 'r')
  s.crashed = s.crashed + 1
end

local function submitted(run, d, at, payload, ms, seq)
  run.submitted = true
  if run.status == '-' then
    run.status = 'p'
  end
  run.number, run.own_slug = d.pl or 0, d.wf
  run.plan = plan_of(run.number)
  run.open = run.open + (run.plan and run.plan.n or 0)
  run.priority, run.created = d.p or 0, format('%016d', at)
  run.available = d.v or at + (d.dl or 0)
  if d.tg or d.ih then
    local rare = rare_of(run)
    rare.tags, rare.key_hash = d.tg, not d.ix and d.ih
  end
  if d.tm then
    run.timeout = d.tm
    rare_of(run).deadline = run.available + d.tm
  end
  if payload ~= '' then
    run.input = kept(payload, ms, seq)
    set_field(run, 'i', run.input)
  end
  if run.own_slug then
    set_field(run, 'w', run.own_slug)
  end
end

local function run_started(run, at, slug)
  if slug and run.number == 0 and not run.own_slug then -- a history without its submission, whatever came before by time
    run.own_slug, run.created = slug, format('%016d', at)
    set_field(run, 'w', slug)
  end
  run.status, run.started = 'r', at
end

local function run_ended(run, at, status)
  run.status, run.ended = status, at
end

local function run_retried(run, at, attempt)
  load_steps(run, all_steps(run))
  for _, s in pairs(run.steps) do
    if s.failures + s.crashed > 0 then
      s.failures, s.crashed, s.dirty = 0, 0, true
    end
  end
  run.status, run.attempt = 'p', attempt
  if run.failed then
    run.failed = false
    set_field(run, 'f', '')
  end
  if run.timeout > 0 then
    rare_of(run).deadline = at + run.timeout
  end
end

-- by type: run, step name, time, envelope, payload, ms and seq of the stream id
local apply = {
  StepScheduled = function(run, name, at, d)
    scheduled(run, name, step_of(run, name), d.a, d.v or at + (d.dl or 0), d.p, d.un)
  end,
  StepStarted = function(run, name, at, d, payload, ms)
    started(run, name, step_of(run, name), d.a, ms)
  end,
  StepCompleted = function(run, name, at, d, payload, ms, seq)
    local s = step_of(run, name)
    if d.a >= s.attempt then
      completed(run, name, s, payload, ms, seq)
    end
  end,
  StepFailed = function(run, name, at, d, payload, ms, seq)
    local s = step_of(run, name)
    if d.a >= s.attempt then
      failed(run, name, s, d.f, d.t, ms, seq)
    end
  end,
  StepSkipped = function(run, name, at, d)
    skipped(run, name, step_of(run, name), d.a)
  end,
  StepReclaimed = function(run, name)
    reclaimed(step_of(run, name))
  end,
  RunSubmitted = function(run, name, at, d, payload, ms, seq)
    if not run.submitted then
      submitted(run, d, at, payload, ms, seq)
    end
  end,
  WorkflowStarted = function(run, name, at, d)
    run_started(run, at, d.wf)
  end,
  WorkflowCompleted = function(run, name, at)
    run_ended(run, at, 'c')
  end,
  WorkflowFailed = function(run, name, at)
    run_ended(run, at, 'f')
  end,
  WorkflowCancelled = function(run, name, at)
    run_ended(run, at, 'x')
  end,
  WorkflowRetryStarted = function(run, name, at, d)
    run_retried(run, at, d.w)
  end,
}
