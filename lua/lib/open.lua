-- Every script opens with this: the epoch check and the one time of the call. Phase 1 begins here and writes nothing.
-- @include lib/replies
local call, pcall_write = redis.call, redis.pcall
local format, match, find, sub, char, byte = string.format, string.match, string.find, string.sub, string.char, string.byte
local prefix = sub(meta, 1, -5)
local opened = call('HMGET', meta, 'epoch', 'clock', 'skew')
if opened[1] ~= epoch then
  return { EPOCH }
end
local time = call('TIME')
local skew = tonumber(opened[3]) or 0
local clock = tonumber(opened[2]) or 0
local now = time[1] * 1000000 + time[2] + skew
local skew_moved = false
if now < clock - 1000000 then
  -- a failover to a clock behind: go on from the highest time written, at the new clock's own rate
  skew = skew + (clock - now)
  now = clock
  skew_moved = true
end
if now <= clock then
  now = clock + 1
end
local now_text = format('%d', now)
local next_id = now_text .. '-*'
