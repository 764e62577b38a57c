#!lua
-- reserve: an idempotency key for a run of another partition; whoever comes later learns the first run
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV key_hash string
-- ARGV run_id string
-- RETURNS {OK, run id that the key stands for}
-- @include lib/open
local key = prefix .. 'idempotency:' .. key_hash
local first = call('GET', key)
if not first then
  call('SET', key, '>' .. run_id)
end
return { OK, first and match(first, '^>?(.*)$') or run_id }
