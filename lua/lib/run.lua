-- Runs as Lua tables: the fields of a run's hash, parsed once a call, and what was loaded beside what the fold made of it.
--
--   h          header, packed: status, f where a step failed for good, plan, priority, attempt, open, active, done, created, started, ended, timeout
--   s:<step>   step, packed: status, attempt, level, failures, crashes, unmet, lease (of a scheduled step availableAt), ended, kind
--   o:<step>   output: =<text> or @<event id>        i  input, likewise        w  slug, where there is no plan
--   f          event id of the failure that came first        u:<step>  since when it is handed back for lack of code
--
-- docs/architecture.md says what each part means.
-- @include lib/plan
local runs, any_dropped
local torn -- a member says that there is a run, and its hash is missing: half a partition, where nothing may be written
local LIVE = { p = true, r = true }
local ENDED = { c = true, f = true, k = true }
local ACTIVE = { s = true, r = true }
-- struct, not text: it takes a quarter of the time. redisflow/backend/redis/header.py holds the same formats.
-- b, H, I and d are one, two, four and eight bytes everywhere; a letter without digits is quicker to read, and a time as a double twice as
-- quick as one of eight bytes. `created` is text, since it is needed as a score again and again.
local HEADER = '<c1c1IbHIIIc16ddd'
local STEP = '<c1IbHHIddc1'
local NEVER = '0000000000000000'
local struct_pack, struct_unpack = struct.pack, struct.unpack
local INLINE = 62 -- longest payload kept in the hash: a field over 64 bytes turns the hash from a listpack into a table

each_call(function()
  runs, any_dropped, torn = {}, false, false
end)

-- names of fields by step, made once a call: the same few again and again
local function fields_of(letter)
  return { __index = function(fields, name)
    local field = letter .. name
    fields[name] = field
    return field
  end }
end

local STEP_FIELDS, OUTPUT_FIELDS = fields_of('s:'), fields_of('o:')
local step_fields, output_fields

each_call(function()
  step_fields, output_fields = setmetatable({}, STEP_FIELDS), setmetatable({}, OUTPUT_FIELDS)
end)

local NONE = setmetatable({}, { __newindex = function() error('rare_of(run) first') end })

-- was_*: what the hash said when the run was loaded. events: type and value in turn. rare: what few runs have in a call.
local function new_run(id)
  local key = prefix .. 'run:' .. id
  return {
    id = id, key = key, stream = key .. ':events', steps = {}, count = 0, seq = 0, status = '-', number = 0, plan = false, priority = 0,
    created = NEVER, attempt = 1, open = 0, active = 0, done = 0, timeout = 0, started = 0, ended = 0, failed = false, input = false,
    was_status = false, was_ended = 0, rare = NONE,
  }
end

local function rare_of(run)
  local rare = run.rare
  if rare == NONE then
    rare = {}
    run.rare = rare
  end
  return rare
end

-- a run as its hash holds it
local function parse_run(id, key, text, input, steps)
  local status, failed, number, priority, attempt, open, active, done, created, started, ended, timeout = struct_unpack(HEADER, text)
  return {
    id = id, key = key, stream = key .. ':events', steps = steps, count = 0, seq = 0, status = status, number = number,
    plan = plans[number] or plan_of(number), priority = priority, created = created, attempt = attempt, open = open, active = active,
    done = done, timeout = timeout, started = started, ended = ended, failed = failed == 'f', input = input, was_status = status,
    was_ended = ended, rare = NONE,
  }
end

local function parse_step(text)
  local status, attempt, level, failures, crashes, unmet, at, ended, kind = struct_unpack(STEP, text)
  local available = status == 's' and at
  return {
    status = status, attempt = attempt, level = level, failures = failures, crashes = crashes, unmet = unmet,
    lease = available and 0 or at, available = available, ended = ended, kind = kind, was = status, was_level = level, dirty = false,
    text = text,
  }
end

local function step_text(s)
  return struct_pack(STEP, s.status, s.attempt, s.level, s.failures, s.crashes, s.unmet, s.status == 's' and s.available or s.lease,
    s.ended, s.kind)
end

-- a step that no event has touched yet
local function new_step(run, name)
  local planned = plan_step(run.plan, name)
  return {
    status = 'p', attempt = 0, level = run.priority, failures = 0, crashes = 0, unmet = planned and #planned.deps or 0,
    lease = 0, available = false, ended = 0, kind = '-', was = 'p', was_level = run.priority, dirty = false, text = false,
    unplanned = not planned,
  }
end

-- What a call wrote is kept for the calls that follow, and is used where the hash still holds the very text that it was written as: a
-- claim and the completion behind it need not parse what the call before has made. Bounded by calls and by steps a run.
local keep_run, kept_run
do
  local MOST_KEPT_RUNS, MOST_KEPT_STEPS = 2048, 8
  local young, old, count = {}, {}, 0 -- the young grow old when they are many, and then the old go

  function keep_run(run)
    local plan = run.plan
    if run.rare ~= NONE or not LIVE[run.status] or not plan or plan.n > MOST_KEPT_STEPS then
      return
    end
    if count == MOST_KEPT_RUNS then
      young, old, count = {}, young, 0
    end
    young[run.key], count = run, count + 1
  end

  function kept_run(key, text, input, steps)
    local run = young[key] or old[key]
    if run then
      young[key], old[key] = nil, nil
      if run.text == text and run.input == input then
        run.plan = plans[run.number] or plan_of(run.number)
        run.known, run.steps = run.steps, steps
        run.events, run.count, run.seq, run.fields, run.fanned = nil, 0, 0, nil, nil
        run.was_status, run.was_ended = run.status, run.ended
        return run
      end
    end
  end
end

-- a step by the text of its field, or false
local function step_from(run, name, text)
  local s = run.known and run.known[name]
  if not s or s.text ~= text then
    return text and parse_step(text) or new_step(run, name)
  end
  s.was, s.was_level, s.available, s.dirty, s.member = s.status, s.level, s.status == 's' and s.available, false, nil
  return s
end

local function load_chunk(run, names, first, last)
  local fields, at = {}, {}
  for i = first, last do
    if run.steps[names[i]] == nil then
      fields[#fields + 1] = step_fields[names[i]]
      at[#at + 1] = names[i]
    end
  end
  if #fields > 0 then
    local texts = call('HMGET', run.key, unpack(fields))
    for i, name in ipairs(at) do
      run.steps[name] = step_from(run, name, texts[i])
    end
  end
end

local function load_steps(run, names)
  for first = 1, #names, 500 do
    load_chunk(run, names, first, math.min(first + 499, #names))
  end
end

-- the run with one of its steps, read by one HMGET; nil where there is no such run
local function load_run(id, name)
  local run = runs[id]
  if run == nil then
    local key = prefix .. 'run:' .. id
    local got = call('HMGET', key, 'h', step_fields[name], 'i')
    local text, input = got[1], got[3]
    if not text then
      runs[id] = false
      return nil
    end
    local steps = name ~= '' and { [name] = false } or {} -- made with its room
    run = kept_run(key, text, input, steps) or parse_run(id, key, text, input, steps)
    if run.number == 0 then
      run.slug = call('HGET', key, 'w')
    end
    runs[id] = run
    runs[#runs + 1] = run
    if name ~= '' then
      steps[name] = step_from(run, name, got[2])
    end
  elseif run and not run.dropped and name ~= '' and run.steps[name] == nil then
    load_chunk(run, { name }, 1, 1)
  end
  return run or nil
end

-- a field of the hash for commit to write, behind room for the header
local function set_field(run, field, value)
  local fields, n = run.fields, run.field_count
  if fields then
    fields[n + 1], fields[n + 2], run.field_count = field, value, n + 2
  else
    run.fields, run.field_count = { 'h', false, field, value, false, false }, 4
  end
end

-- what was decided of the run in this call is not written; its outcomes are answered REJECTED
local function drop(run, why)
  run.dropped, any_dropped = tostring(why), true
end

local function slug_of(run)
  return run.plan and run.plan.slug or run.slug or '-'
end

local function queue_of(run, name)
  local planned = plan_step(run.plan, name)
  return planned and planned.queue or slug_of(run)
end

-- every step name of the run: of its plan, and those that only its hash knows
local function all_steps(run)
  local names, seen = {}, {}
  local k = 0
  while run.plan do
    local chunk = plan_chunk(run.plan, k)
    if not chunk then
      break
    end
    for _, name in ipairs(chunk) do
      names[#names + 1], seen[name] = name, true
    end
    k = k + 1
  end
  if not run.plan then
    for _, field in ipairs(call('HKEYS', run.key)) do
      local name = match(field, '^s:(.*)$')
      if name and not seen[name] then
        names[#names + 1], seen[name] = name, true
      end
    end
  end
  return names
end
