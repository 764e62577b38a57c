-- Phase 2: the only code that writes. Per run its events and one HSET; what a fold derives in sorted sets is the difference between
-- the run as loaded and the run as it is now, gathered over all runs into one call a key. Redis rolls nothing back, so a write that
-- raises does not stop the others: its run is folded anew from its stream, which is the truth.
-- @include lib/refold
local STATUS = { p = 'pending', r = 'running', c = 'completed', f = 'failed', x = 'cancelled' }
local adds, removes, level_of = {}, {}, {}
local counts, soonest = {}, {} -- of each queue: steps that became due, and the earliest time of what was scheduled
local ended_runs, extra_writes = {}, {}
local records = {} -- idempotency records to set
local kept_key, kept_answer -- of lib/once: the reply for a repeat of this call
local running_key, ended_key = prefix .. 'running', prefix .. 'ended'
local index_keys, queue_keys = {}, {}
local write_errors

-- scores go as text: Redis formats a number argument with %.17g, at six times the cost
local function score_text(score)
  return score == now and now_text or format('%d', score)
end

local function gather(into, key, a, b)
  local list = into[key]
  if not list then
    list = { n = 0 }
    into[key] = list
  end
  local n = list.n
  if b then
    list[n + 1], list[n + 2], list.n = a, b, n + 2
  else
    list[n + 1], list.n = a, n + 1
  end
end

local function index_key(slug, status)
  local keys = index_keys[slug]
  if not keys then
    keys = {}
    for letter, word in pairs(STATUS) do
      keys[letter] = prefix .. 'runs:' .. slug .. ':' .. word
    end
    index_keys[slug] = keys
  end
  return keys[status]
end

-- the key of a queue's level that is about to be written: its score in `levels` is looked at again
local function touch_queue(queue, level)
  local keys = queue_keys[queue]
  if not keys then
    keys = {}
    queue_keys[queue] = keys
  end
  local key = keys[level]
  if not key then
    local member = queue .. ':' .. level
    key = prefix .. 'scheduled:' .. member
    keys[level] = key
    level_of[key] = member
  end
  return key
end

local function diff_step(run, name, s, was_live, live)
  local member = s.member -- as a claim read it
  local was, is = was_live and s.was, live and s.status
  if was == 's' and (is ~= 's' or s.was_level ~= s.level) then
    member = member or run.id .. '|' .. name
    gather(removes, touch_queue(queue_of(run, name), s.was_level), member)
  elseif was == 'r' and is ~= 'r' then
    member = member or run.id .. '|' .. name
    gather(removes, running_key, member)
  end
  if is == 's' and s.available then
    local queue = queue_of(run, name)
    gather(adds, touch_queue(queue, s.level), score_text(s.available), member or run.id .. '|' .. name)
    local first = soonest[queue]
    if not first or s.available < first then
      soonest[queue] = s.available
    end
    if s.available <= now + 1000000 then -- nearly due: whoever wakes learns the time
      counts[queue] = (counts[queue] or 0) + 1
    end
  elseif is == 'r' and (was ~= 'r' or s.renewed) then
    gather(adds, running_key, score_text(s.beat or s.lease), member or run.id .. '|' .. name)
  end
end

local function diff_run(run)
  local status, was_status = run.status, run.was_status
  local was_live, live = LIVE[was_status], LIVE[status]
  if was_status ~= status then
    local slug = slug_of(run)
    if was_status then
      gather(removes, index_key(slug, was_status), run.id)
    end
    gather(adds, index_key(slug, status), score_text(run.created), run.id)
    if not live then
      ended_runs[#ended_runs + 1] = run.id
      if run.timeout > 0 then
        gather(removes, prefix .. 'deadlines', 'run:' .. run.id)
      end
    end
  end
  if live and run.deadline then
    gather(adds, prefix .. 'deadlines', score_text(run.deadline), 'run:' .. run.id)
  end
  if not live and (was_status ~= status or run.was_ended ~= run.ended) then
    gather(adds, ended_key, score_text(run.ended), run.id)
  elseif live and was_status and not was_live then
    gather(removes, ended_key, run.id)
  end
  if run.tags then
    for _, tag in ipairs(run.tags) do
      gather(adds, prefix .. 'runs:' .. slug_of(run) .. ':tag:' .. tag, score_text(run.created), run.id)
    end
  end
  if run.key_hash then
    records[prefix .. 'idempotency:' .. run.key_hash] = run.id
  end
  if run.expand then
    gather(adds, prefix .. 'expand', 0, run.id)
  end
  local failures = run.failures
  if failures then
    for i = 1, #failures, 2 do
      gather(adds, prefix .. 'failures', score_text(failures[i]), failures[i + 1])
    end
  end
  local stopped = was_live and not live
  for name, s in pairs(run.steps) do
    if s.dirty or stopped then
      diff_step(run, name, s, was_live, live)
    end
  end
end

local function failed_write(run, reply)
  if type(reply) == 'table' and reply.err then
    write_errors = write_errors or {}
    write_errors[run or 'all'] = reply.err
    return true
  end
end

local function write(run, ...)
  local reply = pcall_write(...)
  return not failed_write(run, reply) and reply
end

local function write_hash(run)
  local fields, n = { 'h', header_text(run), false, false, false, false, false, false }, 2 -- room for a step and its output
  for name, s in pairs(run.steps) do
    if s.dirty then
      fields[n + 1], fields[n + 2], n = 's:' .. name, step_text(s), n + 2
    end
  end
  if run.set then
    for field, value in pairs(run.set) do
      fields[n + 1], fields[n + 2], n = field, value, n + 2
    end
  end
  if n <= 3000 then
    failed_write(run, pcall_write('HSET', run.key, unpack(fields, 1, n)))
    return
  end
  for first = 1, n, 3000 do
    write(run, 'HSET', run.key, unpack(fields, first, math.min(first + 2999, n)))
  end
end

local restate

local function write_run(run)
  local stream, id = run.key .. ':events', next_id
  if run.first_seq then
    id = now_text .. '-' .. run.first_seq -- runs of one submit keep their order by the time of their first event
  end
  local events, given = run.events, run.given
  for i = 1, run.count, 4 do
    local reply = pcall_write('XADD', stream, given and given[i] or id, 'type', events[i], 'step', events[i + 1], 'data',
      events[i + 2], 'payload', events[i + 3])
    if type(reply) == 'table' and failed_write(run, reply) then
      return
    end
    id = next_id
  end
  if not run.disordered then
    write_hash(run)
  elseif not pcall(restate, run, true) then -- what is folded stands in the order of time, not of arrival
    failed_write(run, { err = 'the run could not be folded anew' })
  end
end

local function write_sets()
  for key, members in pairs(removes) do
    for first = 1, members.n, 3000 do
      write(nil, 'ZREM', key, unpack(members, first, math.min(first + 2999, members.n)))
    end
  end
  for key, scored in pairs(adds) do
    for first = 1, scored.n, 3000 do
      write(nil, 'ZADD', key, unpack(scored, first, math.min(first + 2999, scored.n)))
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
  for key, id in pairs(records) do
    write(nil, 'SET', key, id)
  end
  adds, removes, level_of, queue_keys, records = {}, {}, {}, {}, {}
end

-- every place that a run may have by what the tables now say, to be taken away before its true places are added
local function withdraw(run)
  local slug = slug_of(run)
  for name, s in pairs(run.steps) do
    local queue, member = queue_of(run, name), run.id .. '|' .. name
    gather(removes, touch_queue(queue, s.level), member)
    if s.was_level ~= s.level then
      gather(removes, touch_queue(queue, s.was_level), member)
    end
    if s.status ~= 'r' or not LIVE[run.status] then -- its score, the last heartbeat, is no fold: it stays
      gather(removes, running_key, member)
    end
  end
  for letter in pairs(STATUS) do
    gather(removes, index_key(slug, letter), run.id)
  end
  for _, tag in ipairs(run.tags or {}) do
    gather(removes, prefix .. 'runs:' .. slug .. ':tag:' .. tag, run.id)
  end
  gather(removes, ended_key, run.id)
  gather(removes, prefix .. 'deadlines', 'run:' .. run.id)
  gather(removes, prefix .. 'expand', run.id)
  for i = 2, #(run.failures or {}), 2 do
    gather(removes, prefix .. 'failures', run.failures[i])
  end
end

-- a run made right from its stream, whatever hash and sets hold: where its writes raised, and for repair; `still`: nothing is to follow
function restate(run, still)
  withdraw(run)
  refold(run)
  if run.status == '-' then -- a new run whose first event could not be written: it does not exist
    run.dropped = 'its first event could not be written'
    if run.key_hash then
      extra_writes[#extra_writes + 1] = { 'DEL', prefix .. 'idempotency:' .. run.key_hash }
    end
    return
  end
  withdraw(run)
  for name, s in pairs(run.steps) do
    s.was, s.dirty = '-', true
    if s.status == 'r' then -- the living keep their last heartbeat
      s.beat = tonumber(call('ZSCORE', running_key, run.id .. '|' .. name))
    end
  end
  run.was_status = false
  run.expand = not still and run.plan and LIVE[run.status] -- what is ready and not scheduled is looked for again, and an end that is missing
  diff_run(run)
  write(run, 'DEL', run.key)
  write_hash(run)
end

local function mend()
  local broken = write_errors
  write_errors = nil
  for _, run in ipairs(runs) do
    if not run.dropped and (broken[run] or broken.all) then
      restate(run)
    end
  end
  write_sets()
end

-- settle, where given, sees what could not be written before the reply is kept
local function commit(settle)
  local high = now
  for _, run in ipairs(runs) do -- still reads: what a diff needs to know of a plan
    if not run.dropped and (run.count > 0 or run.touched) then
      if not run.disordered then
        diff_run(run)
      end
      high = math.max(high, now + run.seq - 1)
    end
  end
  for _, run in ipairs(runs) do
    if not run.dropped and run.count > 0 then
      write_run(run)
    end
  end
  write_sets()
  local clean = not write_errors
  if write_errors and (not pcall(mend) or write_errors) then
    redis.log(redis.LOG_WARNING, 'redisflow: a transition could not be written whole, run `redisflow verify --repair`')
  end
  if skew_moved then
    write(nil, 'HSET', meta, 'clock', high, 'skew', skew, 'skewed', now)
  else
    write(nil, 'HSET', meta, 'clock', high)
  end
  for _, command in ipairs(extra_writes) do
    write(nil, unpack(command))
  end
  if settle then
    settle()
  end
  if kept_key then
    write(nil, 'SET', kept_key, cmsgpack.pack(kept_answer), 'PX', 900000)
  end
  return clean and not write_errors
end
