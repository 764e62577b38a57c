#!lua flags=allow-oom
-- skip: a running step is skipped, and with it what cannot do without it
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV step string
-- ARGV lease int                of the claim
-- ARGV data string              envelope of the event
-- ARGV payload string           output, or the packed error
-- ARGV how string               ''
-- RETURNS {code or {CONFLICT, kind}, now}
-- EVENTS StepSkipped StepScheduled WorkflowCompleted WorkflowFailed
-- @include lib/open
-- @include lib/single
-- @include lib/once
return settle_alone(run_id, step, lease, 'k', data, payload, how)
