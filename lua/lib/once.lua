-- Repeats: the reply of a call is kept under its request id, and a repeat is answered from it. A script that includes this begins with
-- `repeated`, as the loader sees to it. A call without a request id keeps nothing, since what it writes tells a repeat.
-- @include lib/commit
local repeated, keep
do
  local once_key

  -- the kept reply where this call is a repeat
  function repeated(request)
    once_key = request ~= '' and prefix .. 'once:' .. request
    local earlier = once_key and call('GET', once_key)
    return earlier and cmsgpack.unpack(earlier)
  end

  function keep(reply)
    kept_key, kept_answer = once_key, reply
    return reply
  end
end
