#!lua flags=allow-oom
-- wait: someone waits for these runs; answers the status letter of each, '' where there is none
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV run_ids list
-- RETURNS {OK, {status letter} each}
-- @include lib/open
local statuses, waiting = {}, {}
for i = run_ids, #ARGV do
  local header = call('HGET', prefix .. 'run:' .. ARGV[i], 'h')
  local status = header and sub(header, 1, 1) or ''
  statuses[#statuses + 1] = status
  if status == 'p' or status == 'r' then
    waiting[#waiting + 1] = now
    waiting[#waiting + 1] = ARGV[i]
  end
end
if #waiting > 0 then
  call('ZADD', prefix .. 'waiters', unpack(waiting))
  call('EXPIRE', prefix .. 'waiters', 86400)
end
return { OK, statuses }
