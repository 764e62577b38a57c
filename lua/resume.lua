#!lua flags=allow-oom
-- resume: a live run is looked over once more; what is ready and not scheduled follows by `expand`
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- RETURNS {OK, completed steps, steps left} or {GONE | RUN_ENDED, status letter} or {REJECTED, why}
-- EVENTS WorkflowResumed
-- @include lib/open
-- @include lib/emit
-- @include lib/whole
-- @include lib/once
local run = load_run(run_id, '')
if not run then
  return { GONE }
elseif not LIVE[run.status] then
  return { RUN_ENDED, run.status }
end
emit(run, 'WorkflowResumed', '', map(4, pair('pl', run.number) .. pair('oi', run_id) .. pair('rn', run.done)
  .. pair('pn', run.open)))
rare_of(run).expand = run.plan and true
local answer = keep({ OK, run.done, run.open })
commit(whole(answer))
return answer
