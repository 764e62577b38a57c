-- How events stand in a run's stream. An entry holds all events of a transition, so none of them can be there without the others; those
-- that a caller saves have an entry each. For each event there is a field named by its type, whose value is its step, NUL, its envelope
-- and, where it has one, its payload. The first has the entry's id, those behind it the ids that follow. The twin for readers is
-- redisflow/backend/entries.py.
-- @include lib/open
local PER_ENTRY = 500 -- fields and values; a call that adds more to a run makes several entries

-- step, fields, payload and packed envelope of a value
local function open_event(value)
  local bar = find(value, '\0', 1, true)
  local ends, fields = cmsgpack.unpack_one(value, bar)
  if ends < 0 then
    return sub(value, 1, bar - 1), fields, '', sub(value, bar + 1)
  end
  return sub(value, 1, bar - 1), fields, sub(value, ends + 1), sub(value, bar + 1, ends)
end

local function parse_id(id)
  local ms, seq = match(id, '^(%d+)-(%d+)$')
  return ms and tonumber(ms), ms and tonumber(seq)
end

-- id of the last event of an entry
local function last_event(entry)
  local ms, seq = parse_id(entry[1])
  return format('%d-%d', ms, seq + #entry[2] / 2 - 1)
end

-- type and value of the event with an id, or nil
local function event_at(run, id)
  local ms, seq = parse_id(id)
  if not ms then
    error("'" .. id .. "' is no id of an event", 0)
  end
  local entry = call('XREVRANGE', run.stream, id, '-', 'COUNT', '1')[1]
  local begins, first = parse_id(entry and entry[1] or '0-0')
  if begins == ms then
    local place = 2 * (seq - first)
    return entry[2][place + 1], entry[2][place + 2]
  end
end

-- the fields of the last StepStarted of a step in the call that made a lease: all starts of an imported run share one
local function start_at(run, name, lease)
  local found
  for _, entry in ipairs(call('XRANGE', run.stream, lease, lease)) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'StepStarted' then
        local step, fields = open_event(entry[2][i + 1])
        if step == name then
          found = fields
        end
      end
    end
  end
  return found
end
