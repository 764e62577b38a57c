#!lua flags=allow-oom
-- fail: a running step failed: it is scheduled again while its policy allows, else it has failed
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV step string
-- ARGV lease int                of the claim
-- ARGV data string              envelope of the event
-- ARGV payload string           output, or the packed error
-- ARGV how string               <reason> <draw 0..1> <delay µs or -> <fatal 0|1> <bucket of the duration>
-- RETURNS {code or {CONFLICT, kind}, now}
-- EVENTS StepFailed StepRetrying StepScheduled WorkflowFailed
-- @include lib/open
-- @include lib/single
-- @include lib/once
return settle_alone(run_id, step, lease, 'f', data, payload, how)
