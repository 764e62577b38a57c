-- Repeats: the reply of a call is kept under its request id, and a repeat is answered from it.
local once_key = prefix .. 'once:' .. request
local earlier = call('GET', once_key)
if earlier then
  return cmsgpack.unpack(earlier)
end

local function keep(reply)
  kept_key, kept_answer = once_key, reply
  return reply
end
