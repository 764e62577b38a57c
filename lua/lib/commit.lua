-- Phase 2: the only code that writes. Per run its events and one HSET; what a fold derives in sorted sets is the difference between
-- the run as loaded and the run as it is now, gathered over all runs into one call a key. Redis rolls nothing back, so a write that
-- raises does not stop the others: its run is folded anew from its stream, which is the truth.
-- @include lib/refold
local STATUS = { p = 'pending', r = 'running', c = 'completed', f = 'failed', x = 'cancelled' }
local adds, removes, level_of = {}, {}, {}
local counts, soonest = {}, {} -- of each queue: steps that became due, and the earliest time of what was scheduled
local ended_runs, extra_writes = {}, {}
local write_errors

local function gather(into, key, a, b)
  local list = into[key]
  if not list then
    list = {}
    into[key] = list
  end
  list[#list + 1] = a
  if b then
    list[#list + 1] = b
  end
end

-- the key of a queue's level that is about to be written: its score in `levels` is looked at again
local function touch_queue(queue, level)
  local member = queue .. ':' .. level
  local key = prefix .. 'scheduled:' .. member
  level_of[key] = member
  return key
end

local function diff_step(run, name, s)
  local was_live, live = LIVE[run.was.status], LIVE[run.status]
  local member = run.id .. '|' .. name
  local was, is = was_live and s.was, live and s.status
  if was == 's' and (is ~= 's' or s.was_level ~= s.level) then
    gather(removes, touch_queue(queue_of(run, name), s.was_level), member)
  elseif was == 'r' and is ~= 'r' then
    gather(removes, prefix .. 'running', member)
  end
  if is == 's' and s.available then
    local queue = queue_of(run, name)
    gather(adds, touch_queue(queue, s.level), s.available, member)
    soonest[queue] = math.min(soonest[queue] or s.available, s.available)
    if s.available <= now + 1000000 then -- nearly due: whoever wakes learns the time
      counts[queue] = (counts[queue] or 0) + 1
    end
  elseif is == 'r' and (was ~= 'r' or s.renewed) then
    gather(adds, prefix .. 'running', s.beat or s.lease, member)
  end
end

local function diff_run(run)
  local was, live = run.was, LIVE[run.status]
  if was.status ~= run.status then
    local index = prefix .. 'runs:' .. slug_of(run) .. ':'
    if was.status then
      gather(removes, index .. STATUS[was.status], run.id)
    end
    gather(adds, index .. STATUS[run.status], run.created, run.id)
    if not live then
      ended_runs[#ended_runs + 1] = run.id
      if run.timeout ~= '-' then
        gather(removes, prefix .. 'deadlines', 'run:' .. run.id)
      end
    end
  end
  if live and run.deadline then
    gather(adds, prefix .. 'deadlines', run.deadline, 'run:' .. run.id)
  end
  if not live and (was.status ~= run.status or was.ended ~= run.ended) then
    gather(adds, prefix .. 'ended', run.created + tonumber(run.ended), run.id)
  elseif live and was.status and not LIVE[was.status] then
    gather(removes, prefix .. 'ended', run.id)
  end
  if run.expand then
    gather(adds, prefix .. 'expand', 0, run.id)
  end
  for name, s in pairs(run.steps) do
    if s.dirty or (LIVE[was.status] and not live) then
      diff_step(run, name, s)
    end
  end
end

local function write(run, ...)
  local reply = pcall_write(...)
  if type(reply) == 'table' and reply.err then
    write_errors = write_errors or {}
    write_errors[run or 'all'] = reply.err
    return false
  end
  return reply
end

local function write_hash(run)
  local fields = { 'h', header_text(run) }
  for name, s in pairs(run.steps) do
    if s.dirty then
      fields[#fields + 1] = 's:' .. name
      fields[#fields + 1] = step_text(s)
    end
  end
  for field, value in pairs(run.set) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  for first = 1, #fields, 3000 do
    write(run, 'HSET', run.key, unpack(fields, first, math.min(first + 2999, #fields)))
  end
end

local function write_run(run)
  local stream, id = run.key .. ':events', next_id
  if run.first_seq then
    id = now_text .. '-' .. run.first_seq -- runs of one submit keep their order by the time of their first event
  end
  for _, event in ipairs(run.events) do
    if not write(run, 'XADD', stream, id, 'type', event[1], 'step', event[2], 'data', event[3], 'payload', event[4]) then
      run.expand = true -- what should have followed may be missing: the round over `expand` takes it on
      return
    end
    id = next_id
  end
  write_hash(run)
end

local function write_sets()
  for key, members in pairs(removes) do
    for first = 1, #members, 3000 do
      write(nil, 'ZREM', key, unpack(members, first, math.min(first + 2999, #members)))
    end
  end
  for key, pairs_list in pairs(adds) do
    for first = 1, #pairs_list, 3000 do
      write(nil, 'ZADD', key, unpack(pairs_list, first, math.min(first + 2999, #pairs_list)))
    end
  end
  for key, member in pairs(level_of) do
    local head = write(nil, 'ZRANGE', key, 0, 0, 'WITHSCORES')
    if head and head[2] then
      write(nil, 'ZADD', prefix .. 'levels', head[2], member)
    elseif head then
      write(nil, 'ZREM', prefix .. 'levels', member)
    end
  end
  adds, removes, level_of = {}, {}, {}
end

local function mend()
  local broken = write_errors
  write_errors = nil
  for _, run in ipairs(runs) do
    if not run.dropped and (broken[run] or broken.all) then
      refold(run)
      write_hash(run)
      diff_run(run)
    end
  end
  write_sets()
  if write_errors then
    local _, why = next(write_errors)
    redis.log(redis.LOG_WARNING, 'redisflow: a transition could not be written whole, run `redisflow verify --repair`: ' .. why)
  end
end

local function commit()
  local high = now
  for _, run in ipairs(runs) do
    if not run.dropped then
      write_run(run)
      diff_run(run)
      high = math.max(high, now + run.seq - 1)
    end
  end
  write_sets()
  if write_errors then
    mend()
  end
  if skew_moved then
    write(nil, 'HSET', meta, 'clock', high, 'skew', skew, 'skewed', now)
  else
    write(nil, 'HSET', meta, 'clock', high)
  end
  for _, command in ipairs(extra_writes) do
    write(nil, unpack(command))
  end
end
