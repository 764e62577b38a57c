#!lua flags=allow-oom
-- turn: the outcomes of a worker since its last turn, and a claim for its free slots
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV worker string            <id>.<boot>
-- ARGV lane string
-- ARGV seq int                  one more than the lane's last turn; the same is a repeat
-- ARGV want int                 free slots, 64 at most
-- ARGV queues string            names joined by commas, or *
-- ARGV slots string             a packed uint16 (3 bytes) a free slot
-- ARGV body string              packed pairs of StepStarted: worker id, concurrency
-- ARGV asleep int               1 where the worker stands in the sleepers of its queues, 2 where it was woken without a free slot
-- ARGV outcomes list            seven each: run, step, lease, kind, data, payload, how
-- RETURNS {OK, now, next due µs or 0, asleep 0|1, answers, claims}
-- EVENTS WorkflowStarted WorkflowInputValidation StepStarted StepCompleted StepFailed StepRetrying StepScheduled StepSkipped WorkflowCompleted WorkflowFailed
-- @include lib/open
-- @include lib/outcome
-- @include lib/commit
-- @include lib/claim
-- @include lib/expand
-- @include lib/wake
local worker_key = prefix .. 'worker:' .. worker
local record = call('HGET', worker_key, lane)
if record then
  local last, lease, answers_text, claims_text = match(record, '^(%d+) (%d+)\n([^\n]*)\n(.*)$')
  last, lease = tonumber(last), tonumber(lease)
  if seq < last then
    return { OLD_TURN, last }
  elseif seq == last then
    -- answered from the record: claims whose lease is no longer current are left out, payloads are read again
    local answers, claims = cjson.decode(answers_text), {}
    for id, name in string.gmatch(claims_text, '([^|\n]+)|([^\n]+)') do
      local run = load_run(id, name)
      local s = run and run.steps[name]
      if s and LIVE[run.status] and s.status == 'r' and s.lease == lease then
        local claimed = { id, name, run.number, s.attempt, run.input and (payload_of(run, run.input) or run.input) or '' }
        local planned = plan_step(run.plan, name)
        if planned then
          claim_outputs(run, planned, claimed)
        end
        claims[#claims + 1] = claimed
      end
    end
    return { OK, lease, 0, 0, answers, claims }
  end
end

local answers, answered = {}, 0
for i = outcomes, #ARGV, 7 do
  local id = ARGV[i]
  local ok, answer = pcall(settle, id, ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
  answered = answered + 1
  answers[answered] = ok and answer or OK
  if not ok then
    runs[id] = runs[id] or new_run(id)
    runs[id].dropped = tostring(answer)
  end
end
expand_one()

local serves = {}
for queue in string.gmatch(queues, '[^,]+') do
  serves[queue] = true
end
local claims, claims_text = {}, {}
body = body .. '\162sl'
local next_due, more = nil, false
local function take(run, name)
  local k = #claims
  local ok, claimed = pcall(start_step, run, name, body, 3, sub(slots, 3 * k + 1, 3 * k + 3))
  if not ok then
    run.dropped = tostring(claimed)
    return false
  end
  claims[k + 1] = claimed
  return true
end
if want > 0 then
  local due
  due, next_due = due_levels(serves)
  local taken
  taken, more = take_due(due, want, take)
  if torn then
    return { TORN }
  end
  for _, entry in ipairs(fresh) do
    local run, name = entry[1], entry[2]
    if #claims >= want then
      break
    end
    if not run.dropped and LIVE[run.status] and run.steps[name].status == 's' and run.steps[name].available <= now + run.seq
      and (serves['*'] or serves[queue_of(run, name)]) then
      take(run, name)
    end
  end
end

more = want > 0 and (more or #claims >= want)

-- a run that was dropped takes all outcomes and claims of this call with it, those before the one that raised too
for index = 1, answered do
  local run = runs[ARGV[outcomes + 7 * (index - 1)]]
  if run and run.dropped then
    answers[index] = { REJECTED, run.dropped }
  end
end
local kept = {}
for _, claimed in ipairs(claims) do
  if not runs[claimed[1]].dropped then
    kept[#kept + 1] = claimed
    claims_text[#kept] = runs[claimed[1]].steps[claimed[2]].member or claimed[1] .. '|' .. claimed[2]
  end
end
extra_writes[1] = { 'HSET', worker_key, lane,
  format('%d %s\n', seq, now_text) .. (#answers > 0 and cjson.encode(answers) or '[]') .. '\n' .. table.concat(claims_text, '\n') }
if not record then
  extra_writes[2] = { 'EXPIRE', worker_key, 86400 }
end
commit()

local sleeping = 0
if #kept < want then
  sleeping = 1
  for queue in pairs(serves) do
    pcall_write('ZADD', prefix .. 'sleepers:' .. queue, now, worker)
    pcall_write('EXPIRE', prefix .. 'sleepers:' .. queue, 60)
  end
elseif asleep > 0 then
  for queue in pairs(serves) do
    pcall_write('ZREM', prefix .. 'sleepers:' .. queue, worker)
  end
end
for queue in pairs(serves) do
  if more or asleep == 2 then -- who cannot take what it was woken for wakes another
    counts[queue] = math.max(counts[queue] or 0, 1)
  elseif #kept < want then -- what this call scheduled it also claimed, and this worker knows when the next is due
    counts[queue] = nil
  end
  local at = soonest[queue]
  if at and at > now and (not next_due or at < next_due) then
    next_due = at
  end
end
notify()
return { OK, now, want > 0 and more and now or next_due or 0, sleeping, answers, kept }
