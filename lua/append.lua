#!lua
-- append: events as given, folded and stored: no fence, no advance, no run end
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV events_from list         six each: run, type, step, envelope, payload, given id in µs or ''
-- RETURNS {OK, {event id} each} or {GONE, run}
-- EVENTS RunSubmitted WorkflowStarted WorkflowInputValidation WorkflowCompleted WorkflowFailed WorkflowCancelled WorkflowResumed WorkflowRetryStarted WorkflowRerunFromStep StepScheduled StepStarted StepCompleted StepFailed StepRetrying StepSkipped StepHeartbeat StepReclaimed StepCheckpoint StepCheckpointFailed LogEntry
-- @include lib/open
-- @include lib/commit
-- @include lib/once
local ids = {}
for i = events_from, #ARGV, 6 do
  local id, kind, name, envelope, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local run = load_run(id, name)
  if not run then
    if kind ~= 'RunSubmitted' and kind ~= 'WorkflowStarted' then
      return { GONE, id }
    end
    run = new_run(id)
    runs[id] = run
    runs[#runs + 1] = run
  end
  local fields = cmsgpack.unpack(envelope)
  local at, seq = emit(run, kind, name, envelope, payload)
  ids[#ids + 1] = format('%d', at)
  local reducer = apply[kind]
  if reducer then
    reducer(run, name, fields.ts or at, fields, payload, now, seq)
  end
  if kind == 'RunSubmitted' then
    for _, tag in ipairs(fields.tg or {}) do
      gather(adds, prefix .. 'runs:' .. slug_of(run) .. ':tag:' .. tag, run.created, id)
    end
  end
end
local answer = keep({ OK, ids })
commit()
return answer
