#!lua
-- submit: runs into their partition, each with its root steps scheduled
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string           '' of one run whose id was made for this call: the run itself tells a repeat
-- ARGV runs_from list           three a run: id, RunSubmitted envelope, input
-- RETURNS {OK, {code or {EXISTS, run id[, 1 in another partition]} or {REJECTED, why}} a run}
-- EVENTS RunSubmitted StepScheduled WorkflowStarted WorkflowInputValidation StepStarted
-- @include lib/open
-- @include lib/commit
-- @include lib/commit_light
-- @include lib/handover
-- @include lib/once
-- who can have the first step at once, of the only run of a call: of several, another may be more urgent
local function offer_for(d)
  if #ARGV > runs_from + 2 or d.v or d.dl then
    return nil
  end
  local plan = plan_of(d.pl)
  return find_offer(plan_step(plan, plan.roots[1]).queue)
end

-- the run that an idempotency key stands for, and whether it exists; >id names one of another partition
local function run_of_key(key)
  local first = key and call('GET', key)
  return first, first and (runs[first] or lights[first] or call('EXISTS', prefix .. 'run:' .. first) == 1)
end

-- whether any of the given ids may be in use, by one call for hundreds: hardly ever
local function any_exists()
  local keys = {}
  for i = runs_from, #ARGV, 3 do
    keys[#keys + 1] = prefix .. 'run:' .. ARGV[i]
  end
  for first = 1, #keys, 3000 do
    if call('EXISTS', unpack(keys, first, min(first + 2999, #keys))) > 0 then
      return true
    end
  end
end

local doubtful = false
if request ~= '' then
  doubtful = any_exists()
elseif call('EXISTS', prefix .. 'run:' .. ARGV[runs_from] .. ':events', prefix .. 'once:' .. ARGV[runs_from]) > 0 then -- what delete left
  return { OK, { OK } }
end
local replies, k = {}, 0
local keyed, made = {}, {}
local unpacked, edges = {}, {} -- by envelope: runs of one call mostly have the same
for i = runs_from, #ARGV, 3 do
  local id, envelope, input = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local d = unpacked[envelope]
  if not d then
    d = cmsgpack.unpack(envelope)
    unpacked[envelope] = d
    if not plan_of(d.pl) then
      return { NO_PLAN, d.pl }
    end
    edges[envelope] = submit_edge(d)
  end
  local key = d.ih and not d.ix and prefix .. 'idempotency:' .. d.ih -- ix: the record is in another partition
  local first, exists = keyed[key or ''], true
  if not first then
    first, exists = run_of_key(key)
  end
  if first and sub(first, 1, 1) == '>' then
    replies[#replies + 1] = { EXISTS, sub(first, 2), 1 }
  elseif first and exists then
    replies[#replies + 1] = { EXISTS, first }
  elseif not first and (runs[id] or lights[id] or doubtful and call('EXISTS', prefix .. 'run:' .. id) == 1) then
    replies[#replies + 1] = DUPLICATE
  else
    id = first or id -- a record without its run: a crash left it missing
    local offer = offer_for(d)
    if offer then
      hand_over(offer, edges[envelope], id, d, envelope, input)
    elseif edges[envelope] then
      submit_light(edges[envelope], id, envelope, input, k)
    else
      submit_run(id, d, envelope, input, k)
    end
    if key then
      keyed[key] = id
    end
    k = k + 1
    replies[#replies + 1] = first and { OK, first } or OK
    made[#replies] = id
  end
end
local answer = keep({ OK, replies })
commit(function()
  for index, id in pairs(made) do
    local run = runs[id] -- with tables where it could not be written
    if run and run.dropped then
      replies[index] = { REJECTED, tostring(run.dropped) }
    end
  end
end)
deliver()
notify()
return answer
