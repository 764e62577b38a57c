#!lua flags=allow-oom
-- complete: a running step ends well; what depends on it is scheduled
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV step string
-- ARGV lease int                of the claim
-- ARGV data string              envelope of the event
-- ARGV payload string           output, or the packed error
-- ARGV how string               bucket of the duration (redisflow/model/histogram.py), or ''
-- RETURNS {code or {CONFLICT, kind}, now}
-- EVENTS StepCompleted StepScheduled WorkflowCompleted WorkflowFailed
-- @include lib/open
-- @include lib/single
-- @include lib/once
return settle_alone(run_id, step, lease, 'c', data, payload, how)
