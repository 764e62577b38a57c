-- Repeats: the reply of a call is kept under its request id, and a repeat is answered from it. A script that includes this begins with
-- `repeated`, as the loader sees to it.
-- @include lib/commit
local repeated, keep
do
  local once_key

  -- the kept reply where this call is a repeat
  function repeated(request)
    once_key = prefix .. 'once:' .. request
    local earlier = call('GET', once_key)
    return earlier and cmsgpack.unpack(earlier)
  end

  function keep(reply)
    kept_key, kept_answer = once_key, reply
    return reply
  end
end
