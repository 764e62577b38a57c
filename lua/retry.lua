#!lua flags=allow-oom
-- retry: a failed run starts anew where it stopped, with fresh budgets and deadline
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV reason string            packed pair, or ''
-- RETURNS {OK, steps scheduled} or {GONE | NOT_ENDED | RUN_ENDED, status letter} or {NO_PLAN} or {REJECTED, why} or {MORE}; MORE: call again
-- EVENTS WorkflowRetryStarted StepScheduled
-- @include lib/open
-- @include lib/commit
-- @include lib/expand
-- @include lib/wake
-- @include lib/once
local run = load_run(run_id, '')
if not run then
  return { GONE }
elseif LIVE[run.status] then
  return { NOT_ENDED, run.status }
elseif run.status ~= 'f' then
  return { RUN_ENDED, run.status }
elseif not run.plan then
  return { NO_PLAN }
elseif call('ZSCORE', prefix .. 'expand', run_id) then
  expand_one() -- members of its last attempt are still being taken away
  if torn then
    return { TORN }
  end
  commit()
  return { MORE }
end
local names, retried = all_steps(run), {}
load_steps(run, names)
for _, name in ipairs(names) do
  local s = run.steps[name]
  if s.status ~= 'c' and s.status ~= 'k' and s.unmet == 0 then
    retried[#retried + 1] = name
  end
end
local before = run.attempt
local at = emit(run, 'WorkflowRetryStarted', '', map(reason == '' and 3 or 4, pair('w', before + 1) .. pair('pw', before)
  .. pair('rt', retried) .. reason))
run_retried(run, at, before + 1)
for _, name in ipairs(retried) do
  schedule(run, name, run.steps[name].attempt > 0 and 'r' or 'd', run.steps[name].attempt + 1, 0)
end
rare_of(run).expand = run.plan.n > FAN_OUT -- a cascade of the last attempt may have been cut off by its end
local answer = keep({ OK, #retried })
commit(function()
  if not LIVE[run.status] then
    answer[1], answer[2] = REJECTED, 'not all could be written: ' .. (run.lost or '')
  end
end)
notify()
return answer
