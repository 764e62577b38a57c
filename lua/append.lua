#!lua
-- append: events as given, folded and stored: no fence, no advance, no run end; a run that is imported with its plan enters `expand`
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV events_from list         six each: run, type, step, envelope, payload, given id in µs or ''
-- RETURNS {OK, {event id} each} or {GONE, run} or {REJECTED, why}
-- EVENTS RunSubmitted WorkflowStarted WorkflowInputValidation WorkflowCompleted WorkflowFailed WorkflowCancelled WorkflowResumed WorkflowRetryStarted WorkflowRerunFromStep StepScheduled StepStarted StepCompleted StepFailed StepRetrying StepSkipped StepHeartbeat StepReclaimed StepCheckpoint StepCheckpointFailed LogEntry
-- @include lib/open
-- @include lib/whole
-- @include lib/once
local ids = {}

-- the stream id for a given wire id: itself where it is above the run's last, else the next; false where it lies in the future
local function place_given(run, given)
  if given > now then
    return false
  end
  local rare = rare_of(run)
  if not rare.last then
    local entry = call('XREVRANGE', run.stream, '+', '-', 'COUNT', 1)[1]
    local ms, seq = parse_id(entry and last_event(entry) or '0-0')
    rare.last = ms + seq
  end
  if run.seq == 0 and rare.last < now then
    rare.last = max(given, rare.last + 1)
    return rare.last
  end
end

for i = events_from, #ARGV, 6 do
  local id, kind, name, envelope, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local run = load_run(id, name)
  if not run then
    if kind ~= 'RunSubmitted' and kind ~= 'WorkflowStarted' then
      return { GONE, id }
    end
    run = new_run(id)
    runs[id], made[run] = run, true
    runs[#runs + 1] = run
  end
  local rare = rare_of(run)
  rare.saved = true -- rollups count what the engine does
  local fields = cmsgpack.unpack(envelope)
  local given, place = tonumber(ARGV[i + 5]), nil
  if given then
    place = place_given(run, given)
    if place == false then
      return { REJECTED, 'event id ' .. ARGV[i + 5] .. ' lies in the future' }
    end
  end
  local at, seq, ms
  if place then
    emit(run, kind, name, envelope, payload)
    rare.given = rare.given or {}
    rare.given[run.count - 1], run.seq = format('%d-0', place), 0
    at, seq, ms = place, 0, place
  else
    at, seq = emit(run, kind, name, envelope, payload)
    ms = now
  end
  ids[#ids + 1] = format('%d', at)
  local reducer = apply[kind]
  if reducer then
    reducer(run, name, fields.ts or at, fields, payload, ms, seq)
  end
  if kind ~= 'LogEntry' then
    -- a given time may lie before what was folded already; an end takes the places of steps that are not loaded; and what lies after the
    -- end makes the run a stray
    rare.disordered = rare.disordered or fields.ts and (reducer or fields.ts > now) or not LIVE[run.status]
  end
  rare.still = rare.still ~= false and not fields.go -- go: imported with its plan
  if kind == 'StepFailed' then
    note_failure(run, fields.ts or at, ms, seq)
  end
end
local answer = keep({ OK, ids })
commit(whole(answer))
return answer
