#!lua
-- record: what a running step notes of itself, checkpoints and log lines, in its own lease
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV step string
-- ARGV lease int                of the claim
-- ARGV events_from list         three each: type, envelope, payload
-- RETURNS {OK, now} or {STALE, now} or {RUN_ENDED, now} or {GONE, now} or {REJECTED, why}
-- EVENTS StepCheckpoint StepCheckpointFailed LogEntry
-- @include lib/open
-- @include lib/emit
-- @include lib/whole
-- @include lib/once
-- Last lines may come late: a log needs only that no other lease followed, whereas a checkpoint needs the lease to be alive.
local function fence(run)
  local s, only_logs = run.steps[step], true
  for i = events_from, #ARGV, 3 do
    only_logs = only_logs and ARGV[i] == 'LogEntry'
  end
  local running = s.status == 'r' and s.lease == lease
  if only_logs and (running or (s.lease == 0 and s.ended == lease)) then
    return OK
  elseif not LIVE[run.status] then
    return RUN_ENDED
  end
  return running and OK or STALE
end

local run = load_run(run_id, step)
local code = run and fence(run) or GONE
if code == OK then
  for i = events_from, #ARGV, 3 do
    emit(run, ARGV[i], step, ARGV[i + 1], ARGV[i + 2])
  end
end
local answer = keep({ code, now })
commit(whole(answer))
return answer
