-- Repeats: the reply of a call is kept under its request id, and a repeat is answered from it.
local once_key = prefix .. 'once:' .. request
local kept_reply = call('GET', once_key)
if kept_reply then
  return cmsgpack.unpack(kept_reply)
end

local function keep(reply)
  extra_writes[#extra_writes + 1] = { 'SET', once_key, cmsgpack.pack(reply), 'PX', 900000 }
  return reply
end
