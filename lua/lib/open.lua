-- How every call begins: the epoch check and the one time of the call. Phase 1 begins here and writes nothing.
-- The library stays loaded, so what belongs to one call is made anew by `each_call`, in the order of the includes.
-- @include lib/replies
local call, pcall_write = redis.call, redis.pcall
local format, match, find, sub = string.format, string.match, string.find, string.sub
local unpack, ipairs, pairs, pcall, tonumber, max, min = unpack, ipairs, pairs, pcall, tonumber, math.max, math.min -- a global takes three times as long
local meta, prefix, epoch
local now, now_text, next_id, skew, skew_moved
local each_call, open
do
  local resets = {}

  function each_call(reset)
    resets[#resets + 1] = reset
  end

  -- the reply of a call that ends here
  function open(keys, given)
    meta, epoch = keys[1], given
    prefix = sub(meta, 1, -5)
    local opened = call('HMGET', meta, 'epoch', 'clock', 'skew')
    if opened[1] ~= epoch then
      return { EPOCH }
    end
    local time = call('TIME')
    local clock = tonumber(opened[2]) or 0
    skew, skew_moved = tonumber(opened[3]) or 0, false
    now = time[1] * 1000000 + time[2] + skew
    if now < clock - 1000000 then
      -- a failover to a clock behind: go on from the highest time written, at the new clock's own rate
      skew = skew + (clock - now)
      now = clock
      skew_moved = true
    end
    if now <= clock then
      now = clock + 1
    end
    now_text = format('%d', now)
    next_id = now_text .. '-*'
    for i = 1, #resets do
      resets[i]()
    end
  end
end

-- the table that stands under a key, made where there is none
local function child(by, key)
  local found = by[key]
  if not found then
    found = {}
    by[key] = found
  end
  return found
end
