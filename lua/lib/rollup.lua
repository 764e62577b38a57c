-- Rollups: hash `stats:<minute>`, read by what must answer at once however many runs there are. Of each minute how many events of each
-- type were written, by workflow (`n:<slug>:<type>`), and histograms of how long attempts waited (`w<bucket>`), steps took
-- (`s<bucket>`) and runs took (`r<bucket>`). What is the same for all runs of an edge is counted together, joined by `+`: its types, and
-- the wait of a step that it both schedules and claims. A cache: counted up in tables, written once a call, and no transition fails for it.
-- @include lib/open
local written -- how many events, by slug and type, or several types
local buckets

each_call(function()
  written, buckets = {}, { w = {}, s = {}, r = {} }
end)

-- 16 buckets an octave: redisflow/model/histogram.py says what follows for the error
local bucket_of
do
  local frexp = math.frexp
  function bucket_of(us)
    local fraction, exponent = frexp(us)
    fraction = 32 * fraction
    return 16 * exponent + fraction - fraction % 1 - 16
  end
end

local function count_bucket(kind, bucket)
  local counted = buckets[kind]
  counted[bucket] = (counted[bucket] or 0) + 1
end

-- a call a field: HMGET and HSET of all of them cost half as much again
local function write_rollup()
  local key = prefix .. 'stats:' .. format('%d', now / 60000000)
  local any, fresh_key = false, true
  local function add(field, count)
    local reply = pcall_write('HINCRBY', key, field, format('%d', count))
    any, fresh_key = true, fresh_key and reply == count
  end
  for slug, types in pairs(written) do
    for kind, count in pairs(types) do
      if count > 0 then
        add('n:' .. slug .. ':' .. kind, count)
      end
    end
  end
  if not any then -- nothing was written, or only saved events
    return
  end
  for kind, counted in pairs(buckets) do
    for bucket, count in pairs(counted) do
      add(kind .. bucket, count)
    end
  end
  if fresh_key then
    pcall_write('EXPIRE', key, 21600)
  end
end
