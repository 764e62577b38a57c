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
local left_id, left_step, left -- what lib/light has read of a run that no edge leads on: header, field of the step, input
local lights, make_heavy -- of lib/light: runs that went along an edge in this call, by id; and how one gets its tables after all
local LIVE = { p = true, r = true }
local ENDED = { c = true, f = true, k = true }
local ACTIVE = { s = true, r = true }
-- struct, not text: it takes a quarter of the time. redisflow/backend/redis/header.py holds the same formats.
-- b, H, I and d are one, two, four and eight bytes everywhere; a letter without digits is quicker to read, and a time as a double twice as
-- quick as one of eight bytes. `created` is text, since it is needed as a score again and again.
local HEADER = '<c1c1IbHIIIc16ddd'
local STEP = '<c1IbHHIddc1'
local NEVER = '0000000000000000'
-- What stands before the times is the state of a run or of a step: texts that begin alike are in the same state.
local RUN_STATE = 21 -- bytes; then created,
local CREATED_END = 37
local STARTED_END = 45
local ENDED_END = 53 -- and the timeout
local STEP_STATE = 14 -- then the lease
local LEASE_END = 22
local FENCE_END = 30 -- and the lease that ended last; then its kind
local struct_pack, struct_unpack = struct.pack, struct.unpack
local INLINE = 62 -- longest payload kept in the hash: a field over 64 bytes turns the hash from a listpack into a table

each_call(function()
  runs, any_dropped, torn, left_id = {}, false, false, nil
end)

-- names of fields by step, made once a call: the same few again and again
local step_fields, output_fields
do
  local function fields_of(letter)
    return { __index = function(fields, name)
      local field = letter .. name
      fields[name] = field
      return field
    end }
  end

  local STEP_FIELDS, OUTPUT_FIELDS = fields_of('s:'), fields_of('o:')

  each_call(function()
    step_fields, output_fields = setmetatable({}, STEP_FIELDS), setmetatable({}, OUTPUT_FIELDS)
  end)
end

-- The records of a run and of a step are lists: a table with some twenty names takes five times as long to make, and twice as long to
-- read. The loader puts its place for the name of a slot; of slots that a run and a step share, the place is the same.
-- Of a run, was_*: what the hash said when it was loaded; events: type and value in turn; rare: what few runs have in a call. What stands
-- last is nil as long as nobody needs it.
-- @slots run: status attempt ended available id key stream steps count seq number plan priority created open active done timeout
-- @slots run: started failed input was_status was_ended rare events fields field_count fanned dropped lost own_slug submitted
-- @slots step: status attempt ended available level failures crashed unmet lease kind was was_level dirty
-- @slots step: unplanned member counted beat renewed
local NONE = setmetatable({}, { __newindex = function() error('rare_of(run) first') end })

local function new_run(id)
  local key = prefix .. 'run:' .. id
  return {
    '-', 1, 0, nil, id, key, key .. ':events', {}, 0, 0, 0, false, 0, NEVER, 0, 0, 0, 0, 0, false, false, false, 0, NONE,
    nil, nil, nil, nil, nil, nil, nil, nil,
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
    status, attempt, ended, nil, id, key, key .. ':events', steps, 0, 0, number, plans[number] or plan_of(number), priority, created,
    open, active, done, timeout, started, failed == 'f', input, status, ended, NONE, nil, nil, nil, nil, nil, nil, nil, nil,
  }
end

local function parse_step(text)
  local status, attempt, level, failures, crashed, unmet, at, ended, kind = struct_unpack(STEP, text)
  local available = status == 's' and at
  return {
    status, attempt, ended, available, level, failures, crashed, unmet, available and 0 or at, kind, status, level, false,
    false, nil, nil, nil, nil,
  }
end

local function step_text(s)
  return struct_pack(STEP, s.status, s.attempt, s.level, s.failures, s.crashed, s.unmet, s.status == 's' and s.available or s.lease,
    s.ended, s.kind)
end

-- a step that no event has touched yet
local function new_step(run, name)
  local planned, level = plan_step(run.plan, name), run.priority
  return { 'p', 0, 0, false, level, 0, 0, planned and #planned.deps or 0, 0, '-', 'p', level, false, not planned, nil, nil, nil, nil }
end

-- a step by the text of its field, or false
local function step_from(run, name, text)
  return text and parse_step(text) or new_step(run, name)
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
    load_chunk(run, names, first, min(first + 499, #names))
  end
end

-- the run with one of its steps, read by one HMGET; nil where there is no such run
local function load_run(id, name)
  local run = runs[id]
  if run == nil and lights[id] then
    run = make_heavy(lights[id])
  end
  if run == nil then
    local key = prefix .. 'run:' .. id
    local got = left_id == id and left_step == name and left or call('HMGET', key, 'h', step_fields[name], 'i')
    local text, input = got[1], got[3]
    if not text then
      runs[id] = false
      return nil
    end
    local steps = name ~= '' and { [name] = false } or {} -- made with its room
    run = parse_run(id, key, text, input, steps)
    if run.number == 0 then
      run.own_slug = call('HGET', key, 'w')
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
  return run.plan and run.plan.slug or run.own_slug or '-'
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
