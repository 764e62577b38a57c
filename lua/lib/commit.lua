-- Phase 2: the only code that writes. Per run its events and one HSET; what a fold derives in sorted sets is the difference between
-- the run as loaded and the run as it is now, gathered over all runs into one call a key. Redis rolls nothing back, so a write that
-- raises does not stop the others: its run is folded anew from its stream, which is the truth.
-- @include lib/refold
-- @include lib/rollup
local STATUS = { p = 'pending', r = 'running', c = 'completed', f = 'failed', x = 'cancelled' }
local counts, soonest -- of each queue: steps that became due, and the earliest time of what was scheduled
local ended_runs, extra_writes
local records -- idempotency records to set
local kept_key, kept_answer -- of lib/once: the reply for a repeat of this call
local here -- the sorted sets of this call's partition
local touched -- those that this call changes
local score_texts -- many runs of a call end at the same time
local broken
local sort_lights, write_lights, reload_lights -- of lib/commit_light
local stored -- the run whose events were all written last

-- A sorted set with what the call adds to it and removes from it. Sets outlive calls, since a list that grows to some hundred members at
-- each call costs more than what is put into it.
local MOST_SETS = 2000
local MOST_PARTITIONS = 32
local set_at, set_named, clear
do
  local partitions, partition_count = {}, 0 -- by prefix

  function set_at(key, level)
    local set = here.sets[key]
    if not set then
      set = { name = key, head = level, touched = false, add = {}, adding = 0, remove = {}, removing = 0 }
      here.sets[key], here.size = set, here.size + 1
    end
    return set
  end

  function set_named(name)
    return set_at(prefix .. name)
  end

  function clear(set)
    set.touched, set.adding, set.removing = false, 0, 0
  end

  each_call(function()
    here = partitions[prefix]
    if not here or here.size > MOST_SETS then
      if partition_count == MOST_PARTITIONS then
        partitions, partition_count = {}, 0
      end
      here = { sets = {}, size = 0, index = {}, queues = {}, heads = {}, edges = 0, submissions = {}, followers = {} }
      partitions[prefix], partition_count = here, partition_count + 1
      here.running, here.terminal = set_named('running'), set_named('ended')
    end
    for _, set in ipairs(touched or {}) do -- by a call that ended without writing them
      clear(set)
    end
    touched = {}
    counts, soonest = {}, {}
    ended_runs, extra_writes, records = {}, {}, {}
    kept_key, kept_answer = nil, nil
    score_texts = { [now] = now_text }
    broken, stored = nil, nil
  end)
end

-- numbers go as text: Redis formats a number argument with %.17g, at six times the cost
local function score_text(score)
  local text = score_texts[score]
  if not text then
    text = format('%d', score)
    score_texts[score] = text
  end
  return text
end

local function touch(set)
  set.touched = true
  touched[#touched + 1] = set
end

local function put(set, score, member)
  if not set.touched then
    touch(set)
  end
  local add, n = set.add, set.adding + 1
  add[n] = score
  n = n + 1
  add[n] = member
  set.adding = n
end

local function take_out(set, member)
  if not set.touched then
    touch(set)
  end
  local n = set.removing + 1
  set.remove[n] = member
  set.removing = n
end

-- a workflow's indexes by status
local function index_of(slug)
  local index = here.index[slug]
  if index then
    return index
  end
  index = {}
  for letter, word in pairs(STATUS) do
    index[letter] = set_named('runs:' .. slug .. ':' .. word)
  end
  here.index[slug] = index
  return index
end

-- a level of a queue; where it is touched, its score in `levels` is looked at again
local function level_of(queue, level)
  local levels = child(here.queues, queue)
  local set = levels[level]
  if not set then
    local member = queue .. ':' .. level
    set = set_at(prefix .. 'scheduled:' .. member, member)
    levels[level] = set
  end
  return set
end

-- so many steps of a queue become due
local function expect(queue, available, count)
  local first = soonest[queue]
  if not first or available < first then
    soonest[queue] = available
  end
  if available <= now + 1000000 then -- nearly due: whoever wakes learns the time
    counts[queue] = (counts[queue] or 0) + count
  end
end

local diff_run
do
  local function diff_step(run, name, s, was_live, live)
    local member = s.member -- as a claim read it
    local was, is = was_live and s.was, live and s.status
    if was == 's' and (is ~= 's' or s.was_level ~= s.level) then
      member = member or run.id .. '|' .. name
      take_out(level_of(queue_of(run, name), s.was_level), member)
    elseif was == 'r' and is ~= 'r' then
      member = member or run.id .. '|' .. name
      take_out(here.running, member)
    end
    if is == 's' then
      local queue, available = queue_of(run, name), s.available
      put(level_of(queue, s.level), score_text(available), member or run.id .. '|' .. name)
      expect(queue, available, 1)
    elseif is == 'r' and (was ~= 'r' or s.renewed) then
      put(here.running, score_text(s.beat or s.lease), member or run.id .. '|' .. name)
    end
  end

  -- what follows of what few runs have
  local function diff_rare(run, rare, live)
    if live and rare.deadline then
      put(set_named('deadlines'), score_text(rare.deadline), 'run:' .. run.id)
    end
    for _, tag in ipairs(rare.tags or {}) do
      put(set_named('runs:' .. slug_of(run) .. ':tag:' .. tag), run.created, run.id)
    end
    if rare.key_hash then
      records[prefix .. 'idempotency:' .. rare.key_hash] = run.id
    end
    if rare.expand then
      put(set_named('expand'), 0, run.id)
    end
    local failures = rare.failing or {}
    for i = 1, #failures, 2 do
      put(set_named('failures'), score_text(failures[i]), failures[i + 1])
    end
  end

  function diff_run(run)
    local id, status, was_status = run.id, run.status, run.was_status
    local was_live, live = LIVE[was_status], LIVE[status]
    if was_status ~= status then
      local index = index_of(slug_of(run))
      if was_status then
        take_out(index[was_status], id)
      end
      put(index[status], run.created, id)
      if not live then
        ended_runs[#ended_runs + 1] = id
        if run.timeout > 0 then
          take_out(set_named('deadlines'), 'run:' .. id)
        end
      end
    end
    if not live and (was_status ~= status or run.was_ended ~= run.ended) then
      put(here.terminal, score_text(run.ended), id)
    elseif live and was_status and not was_live then
      take_out(here.terminal, id)
    end
    if run.rare ~= NONE then
      diff_rare(run, run.rare, live)
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

local function header_text(run)
  return struct_pack(HEADER, run.status, run.failed and 'f' or '-', run.number, run.priority, run.attempt, run.open, run.active,
    run.done, run.created, run.started, run.ended, run.timeout)
end

local function write_hash(run)
  local fields, n = run.fields, run.field_count
  local header = header_text(run)
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
    call('HSET', run.key, unpack(fields, first, min(first + 2999, n)))
  end
end

local restate

-- raises where a write does
local function write_run(run)
  local stream, events, n, rare = run.stream, run.events, run.count, run.rare
  if rare.saved then -- no transition: each stands alone, is read alone, and counts for nothing in the rollups
    local given = rare.given or NONE
    for i = 1, n, 2 do
      call('XADD', stream, given[i] or next_id, events[i], events[i + 1])
    end
  else -- whole ids, since one with a star is written anew for replicas and the append-only file: no stream has an entry of this time
    for first = 1, n, PER_ENTRY do
      local seq = run.seq - (n - first + 1) / 2 -- the first is over 0 in a submit of many runs
      call('XADD', stream, now_text .. '-' .. seq, unpack(events, first, min(first + PER_ENTRY - 1, n)))
    end
  end
  if not rare.saved then
    local types = child(written, slug_of(run))
    for i = 1, n, 2 do
      local kind = events[i]
      types[kind] = (types[kind] or 0) + 1
    end
  end
  stored = run
  if rare.disordered then -- what is folded stands in the order of time, not of arrival
    restate(run, rare.still)
    return
  end
  write_hash(run)
end

local function write_sets()
  local sets = touched
  touched = {}
  for _, set in ipairs(sets) do
    for first = 1, set.removing, 3000 do
      write('ZREM', set.name, unpack(set.remove, first, min(first + 2999, set.removing)))
    end
  end
  local changed = {} -- levels whose head may be another
  for _, set in ipairs(sets) do
    for first = 1, set.adding, 3000 do
      write('ZADD', set.name, unpack(set.add, first, min(first + 2999, set.adding)))
    end
    if set.head and set.removing == 0 and set.adding == 2 then
      write('ZADD', prefix .. 'levels', 'LT', set.add[1], set.head)
    elseif set.head then
      changed[#changed + 1] = set
    end
    clear(set)
  end
  for _, set in ipairs(changed) do
    local head = write('ZRANGE', set.name, '0', '0', 'WITHSCORES')
    if head and head[2] then
      write('ZADD', prefix .. 'levels', head[2], set.head)
    elseif head then
      write('ZREM', prefix .. 'levels', set.head)
    end
  end
  for key, id in pairs(records) do
    write('SET', key, id)
  end
  records = {}
end

-- every place that a run may have by what the tables now say, to be taken away before its true places are added
local function withdraw(run, still)
  local slug, rare = slug_of(run), run.rare
  local index = index_of(slug)
  for name, s in pairs(run.steps) do
    local queue, member = queue_of(run, name), run.id .. '|' .. name
    take_out(level_of(queue, s.level), member)
    if s.was_level ~= s.level then
      take_out(level_of(queue, s.was_level), member)
    end
    if s.status ~= 'r' or not LIVE[run.status] then -- its score, the last heartbeat, is no fold: it stays
      take_out(here.running, member)
    end
  end
  for letter in pairs(STATUS) do
    take_out(index[letter], run.id)
  end
  for _, tag in ipairs(rare.tags or {}) do
    take_out(set_named('runs:' .. slug .. ':tag:' .. tag), run.id)
  end
  take_out(here.terminal, run.id)
  take_out(set_named('strays'), run.id)
  take_out(set_named('deadlines'), 'run:' .. run.id)
  if not still then
    take_out(set_named('expand'), run.id)
  end
  for i = 2, #(rare.failing or {}), 2 do
    take_out(set_named('failures'), rare.failing[i])
  end
  for _, member in ipairs(rare.erased or {}) do
    take_out(set_named('failures'), member)
  end
end

-- a run made right from its stream, whatever hash and sets hold: where its writes raised, and for repair; `still`: nothing is to follow
-- save what `expand` has in hand
function restate(run, still)
  withdraw(run, still)
  refold(run)
  if run.status == '-' then -- a new run whose first event could not be written: it does not exist
    run.dropped = 'its first event could not be written'
    for name in pairs(run.steps) do -- handed over
      take_out(here.running, run.id .. '|' .. name)
    end
    if run.rare.key_hash then
      extra_writes[#extra_writes + 1] = { 'DEL', prefix .. 'idempotency:' .. run.rare.key_hash }
    end
    return
  end
  withdraw(run, still)
  for name, s in pairs(run.steps) do
    s.was, s.dirty = '-', true
    if s.status == 'r' then -- the living keep their last heartbeat
      s.beat = tonumber(call('ZSCORE', here.running.name, run.id .. '|' .. name))
    end
  end
  local rare = rare_of(run)
  if rare.latest > (LIVE[run.status] and now + run.seq or run.ended) then -- only saved events lie so
    put(set_named('strays'), score_text(rare.latest), run.id)
  end
  run.was_status = false
  rare.expand = not still and run.plan and LIVE[run.status] -- what is ready and not scheduled is looked for again, and an end that is missing
  diff_run(run)
  if not (pcall(call, 'DEL', run.key) and pcall(write_hash, run)) then
    note_broken(run)
  end
end

local function note_remade(run, why)
  why = type(why) == 'table' and why.err or tostring(why)
  redis.log(redis.LOG_NOTICE, 'redisflow: ' .. run.id .. ' is made anew from its stream: ' .. why)
  return why
end

local KEPT = 900000000 -- µs that the reply of a call is kept
local function keep_reply(key, answer)
  return write('SET', key, cmsgpack.pack(answer), 'PX', '900000')
end

local commit
do
  local function mend()
    local to_mend = broken
    broken = nil
    reload_lights(to_mend)
    for _, run in ipairs(runs) do
      if not run.dropped and (to_mend[run] or to_mend.all) and not pcall(restate, run, run.rare.still) then
        note_broken(run)
      end
    end
    write_sets()
  end

  -- one pcall for all that go through; a run whose write raises is noted, and the others go on
  local function write_runs()
    local index, run = 0, nil
    local function go_on()
      for i = index + 1, #runs do
        index, run = i, runs[i]
        if run.count > 0 and not run.dropped then
          write_run(run)
        end
      end
    end
    repeat
      local ok, why = pcall(go_on)
      if not ok then
        note_broken(run)
        run.lost = stored ~= run and note_remade(run, why)
      end
    until ok
  end

  -- settle, where given, sees what could not be written before the reply is kept
  function commit(settle)
    local most = 1 -- events of one run
    for i = 1, #runs do -- still reads: what a diff needs to know of a plan
      local run = runs[i]
      if not run.dropped and (run.count > 0 or run.rare.touched) then
        if not run.rare.disordered then
          diff_run(run)
        end
        if run.seq > most then
          most = run.seq
        end
      end
    end
    most = max(most, sort_lights())
    local high = score_text(now + most - 1) -- the latest time that is written
    write_runs()
    write_lights()
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
      keep_reply(kept_key, kept_answer)
    end
    return clean and not broken
  end
end
