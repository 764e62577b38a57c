-- Phase 2: the only code that writes. Per run its events and one HSET; what a fold derives in sorted sets is the difference between
-- the run as loaded and the run as it is now, gathered over all runs into one call a key. Redis rolls nothing back, so a write that
-- raises does not stop the others: its run is folded anew from its stream, which is the truth.
-- @include lib/refold
-- @include lib/rollup
local STATUS = { p = 'pending', r = 'running', c = 'completed', f = 'failed', x = 'cancelled' }
local adds, removes, level_of
local counts, soonest -- of each queue: steps that became due, and the earliest time of what was scheduled
local ended_runs, extra_writes
local records -- idempotency records to set
local kept_key, kept_answer -- of lib/once: the reply for a repeat of this call
local running_key, ended_key
local index_keys, queue_keys
local score_texts -- many runs of a call end at the same time
local broken
local stored -- the run whose events were all written last

each_call(function()
  adds, removes, level_of = {}, {}, {}
  counts, soonest = {}, {}
  ended_runs, extra_writes, records = {}, {}, {}
  kept_key, kept_answer = nil, nil
  running_key, ended_key = prefix .. 'running', prefix .. 'ended'
  index_keys, queue_keys = {}, {}
  score_texts = { [now] = now_text }
  broken, stored = nil, nil
end)

-- scores go as text: Redis formats a number argument with %.17g, at six times the cost
local function score_text(score)
  local text = score_texts[score]
  if not text then
    text = format('%d', score)
    score_texts[score] = text
  end
  return text
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

-- keys of a workflow's indexes by status
local function index_of(slug)
  local keys = index_keys[slug]
  if not keys then
    keys = {}
    for letter, word in pairs(STATUS) do
      keys[letter] = prefix .. 'runs:' .. slug .. ':' .. word
    end
    index_keys[slug] = keys
  end
  return keys
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
  if s.waited then
    count_bucket('w', bucket_of(s.waited))
  end
  if s.took then
    count_bucket('s', s.took)
  end
  local was, is = was_live and s.was, live and s.status
  if was == 's' and (is ~= 's' or s.was_level ~= s.level) then
    member = member or run.id .. '|' .. name
    gather(removes, touch_queue(queue_of(run, name), s.was_level), member)
  elseif was == 'r' and is ~= 'r' then
    member = member or run.id .. '|' .. name
    gather(removes, running_key, member)
  end
  if is == 's' and s.available ~= s.was_available then
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
    local index = index_of(slug_of(run))
    if was_status then
      gather(removes, index[was_status], run.id)
    end
    gather(adds, index[status], run.created, run.id)
    if not live then
      ended_runs[#ended_runs + 1] = run.id
      if run.took then
        count_bucket('r', bucket_of(run.took))
      end
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
      gather(adds, prefix .. 'runs:' .. slug_of(run) .. ':tag:' .. tag, run.created, run.id)
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
    if s.dirty then
      set_field(run, step_fields[name], step_text(s))
      diff_step(run, name, s, was_live, live)
    elseif stopped then
      diff_step(run, name, s, was_live, live)
    end
  end
end

-- what could not be written: runs, or 'all' for what belongs to no single one
local function note_broken(what)
  broken = broken or {}
  broken[what] = true
end

local function write(...)
  local reply = pcall_write(...)
  if type(reply) == 'table' and reply.err then
    note_broken('all')
    return false
  end
  return reply
end

local function write_hash(run)
  local fields, n = run.fields, run.field_count
  local header = struct_pack(HEADER, run.status, run.failed and 'f' or '-', run.number, run.priority, run.attempt, run.open, run.active,
    run.done, run.created, run.started, run.ended, run.timeout)
  if not fields then
    call('HSET', run.key, 'h', header)
    return
  end
  fields[2] = header
  if n <= 3000 then
    call('HSET', run.key, unpack(fields, 1, n))
    return
  end
  for first = 1, n, 3000 do
    call('HSET', run.key, unpack(fields, first, math.min(first + 2999, n)))
  end
end

local restate

-- raises where a write does
local function write_run(run)
  local stream, events, n = run.key .. ':events', run.events, run.count
  if run.given then
    for i = 1, n, 2 do
      call('XADD', stream, run.given[i] or next_id, events[i], events[i + 1])
    end
  elseif n <= 2 * PER_ENTRY then -- runs of one submit keep their order by the time of their first event
    call('XADD', stream, run.first_seq and now_text .. '-' .. run.first_seq or next_id, unpack(events, 1, n))
  else
    for first = 1, n, 2 * PER_ENTRY do
      local seq = (run.first_seq or 0) + (first - 1) / 2
      call('XADD', stream, now_text .. '-' .. seq, unpack(events, first, math.min(first + 2 * PER_ENTRY - 1, n)))
    end
  end
  if not run.saved then
    local types = types_of(run)
    for i = 1, n, 2 do
      local kind = events[i]
      types[kind] = (types[kind] or 0) + 1
    end
  end
  stored = run
  if run.disordered then -- what is folded stands in the order of time, not of arrival
    restate(run, run.still)
  else
    write_hash(run)
  end
end

local function write_sets()
  for key, members in pairs(removes) do
    for first = 1, members.n, 3000 do
      write('ZREM', key, unpack(members, first, math.min(first + 2999, members.n)))
    end
  end
  for key, scored in pairs(adds) do
    for first = 1, scored.n, 3000 do
      write('ZADD', key, unpack(scored, first, math.min(first + 2999, scored.n)))
    end
  end
  for key, member in pairs(level_of) do
    local head = write('ZRANGE', key, 0, 0, 'WITHSCORES')
    if head and head[2] then
      write('ZADD', prefix .. 'levels', head[2], member)
    elseif head then
      write('ZREM', prefix .. 'levels', member)
    end
  end
  for key, id in pairs(records) do
    write('SET', key, id)
  end
  adds, removes, level_of, queue_keys, records = {}, {}, {}, {}, {}
end

-- every place that a run may have by what the tables now say, to be taken away before its true places are added
local function withdraw(run, still)
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
    gather(removes, index_of(slug)[letter], run.id)
  end
  for _, tag in ipairs(run.tags or {}) do
    gather(removes, prefix .. 'runs:' .. slug .. ':tag:' .. tag, run.id)
  end
  gather(removes, ended_key, run.id)
  gather(removes, prefix .. 'strays', run.id)
  gather(removes, prefix .. 'deadlines', 'run:' .. run.id)
  if not still then
    gather(removes, prefix .. 'expand', run.id)
  end
  for i = 2, #(run.failures or {}), 2 do
    gather(removes, prefix .. 'failures', run.failures[i])
  end
  for _, member in ipairs(run.erased or {}) do
    gather(removes, prefix .. 'failures', member)
  end
end

-- a run made right from its stream, whatever hash and sets hold: where its writes raised, and for repair; `still`: nothing is to follow
-- save what `expand` has in hand
function restate(run, still)
  withdraw(run, still)
  refold(run)
  if run.status == '-' then -- a new run whose first event could not be written: it does not exist
    run.dropped = 'its first event could not be written'
    if run.key_hash then
      extra_writes[#extra_writes + 1] = { 'DEL', prefix .. 'idempotency:' .. run.key_hash }
    end
    return
  end
  withdraw(run, still)
  for name, s in pairs(run.steps) do
    s.was, s.dirty = '-', true
    if s.status == 'r' then -- the living keep their last heartbeat
      s.beat = tonumber(call('ZSCORE', running_key, run.id .. '|' .. name))
    end
  end
  if run.latest > (LIVE[run.status] and now + run.seq or run.ended) then -- only saved events lie so
    gather(adds, prefix .. 'strays', score_text(run.latest), run.id)
  end
  run.was_status = false
  run.expand = not still and run.plan and LIVE[run.status] -- what is ready and not scheduled is looked for again, and an end that is missing
  diff_run(run)
  if not (pcall(call, 'DEL', run.key) and pcall(write_hash, run)) then
    note_broken(run)
  end
end

local function mend()
  local to_mend = broken
  broken = nil
  for _, run in ipairs(runs) do
    if not run.dropped and (to_mend[run] or to_mend.all) and not pcall(restate, run, run.still) then
      note_broken(run)
    end
  end
  write_sets()
end

-- settle, where given, sees what could not be written before the reply is kept
local function commit(settle)
  local most = 1 -- events of one run
  for _, run in ipairs(runs) do -- still reads: what a diff needs to know of a plan
    if not run.dropped and (run.count > 0 or run.touched) then
      if not run.disordered then
        diff_run(run)
      end
      if run.seq > most then
        most = run.seq
      end
    end
  end
  local high = score_text(now + most - 1) -- the latest time that is written
  for _, run in ipairs(runs) do
    if run.count > 0 and not run.dropped then
      local ok, why = pcall(write_run, run)
      if not ok then
        note_broken(run)
        run.lost = stored ~= run and (type(why) == 'table' and why.err or tostring(why))
      end
    end
  end
  write_sets()
  local clean = not broken
  if broken and (not pcall(mend) or broken) then
    redis.log(redis.LOG_WARNING, 'redisflow: a transition could not be written whole, run `redisflow verify --repair`')
  end
  if skew_moved then
    write('HSET', meta, 'clock', high, 'skew', skew, 'skewed', now)
  else
    write('HSET', meta, 'clock', high)
  end
  for _, command in ipairs(extra_writes) do
    write(unpack(command))
  end
  write_rollup()
  if settle then
    settle()
  end
  if kept_key then
    write('SET', kept_key, cmsgpack.pack(kept_answer), 'PX', 900000)
  end
  return clean and not broken
end
