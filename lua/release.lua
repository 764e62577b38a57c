#!lua flags=allow-oom
-- release: a running step is handed back unharmed; no attempt is spent
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV step string
-- ARGV lease int                of the claim
-- ARGV data string              envelope of the event
-- ARGV payload string           output, or the packed error
-- ARGV how string               drain, or unknown <µs of patience>
-- RETURNS {code or {CONFLICT, kind}, now}
-- EVENTS StepScheduled StepFailed WorkflowFailed
-- @include lib/open
-- @include lib/single
-- @include lib/once
return settle_alone(run_id, step, lease, 'l', data, payload, how)
