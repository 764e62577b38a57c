#!lua flags=allow-oom
-- claim: one named step, scheduled and due -> running, for exactly one caller
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV step string
-- ARGV body string              packed pairs of StepStarted: worker id and more
-- ARGV pairs_in_body int
-- RETURNS {OK, lease, {run, step, plan, attempt, input, dependency, output ...}} or {code}
-- EVENTS WorkflowStarted WorkflowInputValidation StepStarted
-- @include lib/open
-- @include lib/commit
-- @include lib/claim
local once_key = prefix .. 'once:' .. request
local run = load_run(run_id, step)
if not run then
  return { GONE }
end
local s, before = run.steps[step], tonumber(call('GET', once_key) or 0)
local claimed = before > 0 and claim_again(run_id, step, before)
if claimed then
  return { OK, before, claimed }
elseif before > 0 then
  return { STALE }
elseif not LIVE[run.status] then
  return { RUN_ENDED }
elseif s.status ~= 's' then
  return { NOT_DUE }
end
local due = call('ZSCORE', prefix .. 'scheduled:' .. queue_of(run, step) .. ':' .. s.level, run_id .. '|' .. step)
if not due then
  return { TORN }
elseif tonumber(due) > now then
  return { NOT_DUE }
end
claimed = start_step(run, step, body, pairs_in_body)
extra_writes[1] = { 'SET', once_key, now_text, 'PX', 900000 }
commit()
return { OK, now, claimed }
