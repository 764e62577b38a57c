#!lua
-- rerun: a new run from an ended one: finished steps keep their events and outputs, the others start anew
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string            of the new run, in the parent's partition
-- ARGV parent_id string
-- ARGV envelope string          RunSubmitted
-- ARGV input string
-- ARGV lineage string           envelope of WorkflowRerunFromStep
-- ARGV kept_steps list          steps whose events are copied
-- RETURNS {OK} or {GONE | NOT_ENDED | DUPLICATE | NO_PLAN} or {REJECTED, why}
-- EVENTS RunSubmitted WorkflowRerunFromStep StepScheduled StepStarted StepCompleted StepFailed StepRetrying StepSkipped StepReclaimed StepCheckpoint StepCheckpointFailed WorkflowCompleted
-- @include lib/open
-- @include lib/whole
-- @include lib/expand
-- @include lib/wake
-- @include lib/once
local parent = load_run(parent_id, '')
if not parent then
  return { GONE }
elseif LIVE[parent.status] then
  return { NOT_ENDED }
elseif call('EXISTS', prefix .. 'run:' .. run_id) == 1 then
  return { DUPLICATE }
end
local d = cmsgpack.unpack(envelope)
if not plan_of(d.pl) then
  return { NO_PLAN }
end
local run = new_run(run_id)
runs[run_id], runs[#runs + 1], made[run] = run, run, true
submitted(run, d, (emit(run, 'RunSubmitted', '', envelope, input)), input, now, 0)
emit(run, 'WorkflowRerunFromStep', '', lineage)
local keeps = {}
for i = kept_steps, #ARGV do
  keeps[ARGV[i]] = true
end
local types = child(written, slug_of(run))
for _, event in ipairs(stream_events(parent)) do
  local kind, name, at, fields, payload = event[1], event[2], event[3], event[4], event[5]
  if keeps[name] and kind ~= 'LogEntry' and kind ~= 'StepHeartbeat' then
    local _, seq = emit(run, kind, name, fields.ts and event[9] or widen(event[9], 1, pair('ts', at)), payload)
    types[kind] = (types[kind] or 0) - 1 -- a copy counts for nothing in the rollups: it was counted when it happened
    if apply[kind] then
      apply[kind](run, name, at, fields, payload, now, seq)
    end
    if kind == 'StepFailed' then
      note_failure(run, at, now, seq)
    end
  end
end
local names = all_steps(run)
for _, name in ipairs(names) do
  local s = step_of(run, name)
  if s.status == 'p' and s.unmet == 0 then
    if (run.fanned or 0) < FAN_OUT then
      schedule(run, name, plan_step(run.plan, name).deps[1] and 'd' or 'i', 1, 0)
    else
      rare_of(run).expand = true
    end
  elseif s.status == 'p' and s.attempt == 0 then
    s.dirty = s.unmet ~= #plan_step(run.plan, name).deps
  end
end
for i = 1, run.rare.expand and 0 or #names do -- what was skipped stays so, and takes along what needs it
  local from = run.steps[names[i]].status == 'p' and skipped_need(run, names[i])
  if from then
    cascade(run, names[i], from)
    advance(run, names[i])
  end
end
conclude(run)
local answer = keep({ OK })
commit(whole(answer))
notify()
return answer
