-- Runs as Lua tables: the fields of a run's hash, parsed once a call, and what was loaded beside what the fold made of it.
--
--   h          status plan priority created attempt open active done timeout started ended failed
--   s:<step>   status attempt level failures crashes unmet lease ended kind since
--   o:<step>   output: =<text> or @<event id>       i  input, likewise       w  slug, where there is no plan
--
-- docs/architecture.md says what each part means.
-- @include lib/plan
local runs = {}
local LIVE = { p = true, r = true }
local ENDED = { c = true, f = true, k = true }
local ACTIVE = { s = true, r = true }
local HEADER = '^(%a) (%d+) (%-?%d+) (%d+) (%d+) (%-?%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+)$'
local STEP = '^(%a) (%d+) (%-?%d+) (%d+) (%d+) (%-?%d+) (%d+) (%d+) (%S) (%d+)$'
local INLINE = 62 -- longest payload kept in the hash: a field over 64 bytes turns the hash from a listpack into a table

local function new_run(id)
  return {
    id = id, key = prefix .. 'run:' .. id, steps = {}, events = {}, seq = 0, set = {}, was = {},
    status = '-', number = 0, plan = false, priority = 0, created = 0, attempt = 1, open = 0, active = 0, done = 0,
    timeout = '-', started = '-', ended = '-', failed = '-',
  }
end

local function parse_header(run, text)
  local status, number, priority, created, attempt, open, active, done, timeout, started, ended, failed = match(text, HEADER)
  if not status then
    error('run ' .. run.id .. ' has a header of another schema: ' .. text)
  end
  run.status, run.number, run.priority, run.created = status, tonumber(number), tonumber(priority), tonumber(created)
  run.attempt, run.open, run.active, run.done = tonumber(attempt), tonumber(open), tonumber(active), tonumber(done)
  run.timeout, run.started, run.ended, run.failed = timeout, started, ended, failed
  run.plan = plan_of(run.number)
  if run.number == 0 then
    run.slug = call('HGET', run.key, 'w')
  end
end

local function header_text(run)
  return format('%s %d %d %.0f %d %d %d %d %s %s %s %s', run.status, run.number, run.priority, run.created, run.attempt,
    run.open, run.active, run.done, run.timeout, run.started, run.ended, run.failed)
end

local function parse_step(text)
  local status, attempt, level, failures, crashes, unmet, lease, ended, kind, since = match(text, STEP)
  return {
    status = status, attempt = tonumber(attempt), level = tonumber(level), failures = tonumber(failures),
    crashes = tonumber(crashes), unmet = tonumber(unmet), lease = tonumber(lease), ended = tonumber(ended), kind = kind,
    since = tonumber(since), was = status, was_level = tonumber(level),
  }
end

local function step_text(s)
  return format('%s %d %d %d %d %d %.0f %.0f %s %.0f', s.status, s.attempt, s.level, s.failures, s.crashes, s.unmet,
    s.lease, s.ended, s.kind, s.since)
end

-- a step that no event has touched yet
local function new_step(run, name)
  local planned = plan_step(run.plan, name)
  return {
    status = 'p', attempt = 0, level = run.priority, failures = 0, crashes = 0, unmet = planned and #planned.deps or 0,
    lease = 0, ended = 0, kind = '-', since = 0, was = 'p', was_level = run.priority, unplanned = not planned,
  }
end

local function load_chunk(run, names, first, last)
  local fields, at = {}, {}
  for i = first, last do
    if run.steps[names[i]] == nil then
      fields[#fields + 1] = 's:' .. names[i]
      at[#at + 1] = names[i]
    end
  end
  if #fields > 0 then
    local texts = call('HMGET', run.key, unpack(fields))
    for i, name in ipairs(at) do
      run.steps[name] = texts[i] and parse_step(texts[i]) or new_step(run, name)
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
    local got = call('HMGET', key, 'h', 's:' .. name, 'i')
    if not got[1] then
      runs[id] = false
      return nil
    end
    run = new_run(id)
    parse_header(run, got[1])
    run.was.status, run.was.ended, run.input = run.status, run.ended, got[3]
    runs[id] = run
    runs[#runs + 1] = run
    if name ~= '' then
      run.steps[name] = got[2] and parse_step(got[2]) or new_step(run, name)
    end
  elseif run and not run.dropped and name ~= '' and run.steps[name] == nil then
    load_chunk(run, { name }, 1, 1)
  end
  return run or nil
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
