#!lua flags=allow-oom
-- cancel: a run that is not terminal ends as cancelled
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV reason string            packed pair, or ''
-- RETURNS {OK | RUN_ENDED | GONE, status letter of the run after the call}
-- EVENTS WorkflowCancelled
-- @include lib/open
-- @include lib/advance
-- @include lib/commit
-- @include lib/wake
-- @include lib/once
local run = load_run(run_id, '')
if not run then
  return { GONE }
elseif not LIVE[run.status] then
  return { RUN_ENDED, run.status }
end
end_run(run, 'WorkflowCancelled', reason == '' and 1 or 2, pair('c', run.done) .. reason)
local answer = keep({ OK, 'x' })
commit()
notify()
return answer
