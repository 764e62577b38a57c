-- Msgpack by hand for the small envelopes that scripts make: a map is its count byte and then packed pairs, so pairs that are the
-- same in every event of a call are strings made once. Bodies that workers send are maps of at most 15 pairs, and are only joined,
-- never unpacked.
-- @include lib/open
local packed, pair, map, widen
local MAPS -- what a map of so many pairs begins with
do
  local type, pack, char, byte = type, cmsgpack.pack, string.char, string.byte
  function packed(value)
    if type(value) == 'number' and value >= 0 and value < 128 and value % 1 == 0 then
      return char(value)
    end
    return pack(value)
  end

  local pair_heads = {}
  function pair(key, value)
    local head = pair_heads[key]
    if not head then
      head = char(0xa0 + #key) .. key
      pair_heads[key] = head
    end
    return head .. packed(value)
  end

  MAPS = {}
  for count = 0, 15 do
    MAPS[count] = char(0x80 + count)
  end

  function map(count, pairs_text)
    return MAPS[count] .. pairs_text
  end

  -- the body of a map with `count` more pairs
  function widen(body, count, pairs_text)
    return char(byte(body, 1) + count) .. sub(body, 2) .. pairs_text
  end
end
