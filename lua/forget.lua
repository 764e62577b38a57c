#!lua flags=allow-oom
-- forget: the record of an idempotency key whose run, in another partition, was deleted
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV key_hash string
-- ARGV run_id string
-- RETURNS {OK}
-- @include lib/open
local key = prefix .. 'idempotency:' .. key_hash
if call('GET', key) == '>' .. run_id then
  call('DEL', key)
end
return { OK }
