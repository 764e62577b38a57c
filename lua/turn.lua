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
-- ARGV handed int               the last lease that was handed over to it, 0 before the first; -1 where nothing is to be handed over
-- ARGV outcomes list            seven each: run, step, lease, kind, data, payload, how
-- RETURNS {OK, now, next due µs or 0, asleep 0|1 or 2 with an offer of the last slot, answers, claims[, {lease, slot[, claim]} that was
--   handed over and did not arrive]}
-- EVENTS WorkflowStarted WorkflowInputValidation StepStarted StepCompleted StepFailed StepRetrying StepScheduled StepSkipped WorkflowCompleted WorkflowFailed
-- @include lib/open
-- @include lib/outcome
-- @include lib/commit
-- @include lib/claim
-- @include lib/commit_light
-- @include lib/expand
-- @include lib/handover
local worker_key = prefix .. 'worker:' .. worker
local kept_of_it = call('HMGET', worker_key, lane, 'hand')
local record, hand = kept_of_it[1], kept_of_it[2]
local missed = find_missed(hand, handed)
if record then
  local last = tonumber(match(record, '^%d+'))
  if seq < last then
    return { OLD_TURN, last }
  elseif seq == last then
    -- answered from the record: claims whose lease is no longer current are left out, payloads are read again
    local lease, answers_text, claims_text = match(record, '^%d+ (%d+)\n([^\n]*)\n(.*)$')
    local answers, claims = cjson.decode(answers_text), {}
    lease = tonumber(lease)
    for id, name in string.gmatch(claims_text, '([^|\n]+)|([^\n]+)') do
      claims[#claims + 1] = claim_again(id, name, lease)
    end
    return { OK, lease, 0, 0, answers, claims, missed }
  end
end
if missed then -- its slot may be among the free ones
  for at = 1, #slots, SLOT do
    if sub(slots, at, at + SLOT - 1) == missed[2] then
      slots, want = sub(slots, 1, at - 1) .. sub(slots, at + SLOT), want - 1
      break
    end
  end
end

local answers, answered = {}, 0
do
  local outcome, last = outcomes, #ARGV -- the one in hand
  local function settle_all()
    while outcome <= last do
      local id, name, lease, kind, data, payload, how = unpack(ARGV, outcome, outcome + 6)
      lease = tonumber(lease)
      answers[answered + 1] = kind == 'c' and complete_light(id, name, lease, data, payload, how)
        or settle(id, name, lease, kind, data, payload, how)
      answered, outcome = answered + 1, outcome + 7
    end
  end
  repeat
    local ok, why = pcall(settle_all)
    if not ok then -- what the outcome in hand did is dropped with its run; the others go on
      give_up(ARGV[outcome], why)
      answers[answered + 1] = OK
      answered, outcome = answered + 1, outcome + 7
    end
  until ok
end
expand_one()
if torn then
  return { TORN }
end

local serves = {}
for queue in string.gmatch(queues, '[^,]+') do
  serves[queue] = true
end
local claims, next_due, more = {}, nil, false
if want > 0 then
  local in_hand, due -- in_hand: id of the run that is being claimed from
  local pairs_text = body .. '\162sl'
  local function take(run, name)
    in_hand = run.id
    local k = #claims
    claims[k + 1] = start_step(run, name, pairs_text, 3, sub(slots, 3 * k + 1, 3 * k + 3))
    in_hand = nil
  end
  local function take_light(id, name, member)
    local k = #claims
    in_hand = id
    local claimed = claim_light(id, name, member, pairs_text, sub(slots, 3 * k + 1, 3 * k + 3))
    claims[k + 1], in_hand = claimed, nil
    return claimed
  end
  local function take_fresh(light)
    local k = #claims
    in_hand = light.id
    claims[k + 1], in_hand = claim_fresh(light, pairs_text, sub(slots, 3 * k + 1, 3 * k + 3)), nil
    if not claims[k + 1] then
      take(make_heavy(light), light.edge.follower)
    end
  end
  local function take_all()
    more = take_due(due, want - #claims, take_light, take)
    for _, entry in ipairs(fresh) do
      local run, name = entry[1], entry[2]
      if #claims >= want then
        break
      end
      if not run then -- a light one
        if lights[entry.id] and not entry.other_value and (serves['*'] or serves[entry.edge.queue]) then
          take_fresh(entry)
        end
      elseif not run.dropped and LIVE[run.status] and run.steps[name].status == 's' and run.steps[name].available <= now + run.seq
        and (serves['*'] or serves[queue_of(run, name)]) then
        take(run, name)
      end
    end
  end
  due, next_due = due_levels(serves)
  repeat -- what was taken before a claim raised is no longer scheduled, so the next round passes it by
    local ok, why = pcall(take_all)
    if not ok then
      give_up(in_hand or error(why, 0), why)
      in_hand = nil
    end
  until ok
  if torn then
    return { TORN }
  end
end

more = want > 0 and (more or #claims >= want)

local kept = claims
if any_dropped then -- with all its outcomes and claims of this call, those before the one that raised too
  for index = 1, answered do
    local run = runs[ARGV[outcomes + 7 * (index - 1)]]
    if run and run.dropped then
      answers[index] = { REJECTED, run.dropped }
    end
  end
  kept = {}
  for _, claimed in ipairs(claims) do
    local run = runs[claimed[1]]
    if not (run and run.dropped) then
      kept[#kept + 1] = claimed
    end
  end
end
local claims_text = {}
for k = 1, #kept do
  local claimed = kept[k]
  claims_text[k] = claimed[1] .. '|' .. claimed[2]
end
local sleeping = #kept < want and (handed >= 0 and not missed and 2 or 1) or 0
local write_record = { 'HSET', worker_key, lane,
  format('%d %s\n', seq, now_text) .. (#answers > 0 and cjson.encode(answers) or '[]') .. '\n' .. table.concat(claims_text, '\n') }
if sleeping == 2 then
  write_record[5], write_record[6] = 'hand', 'o' .. sub(slots, -SLOT) .. body
elseif hand and sub(hand, 1, 1) == 'o' then
  write_record[5], write_record[6] = 'hand', ''
end
extra_writes[1] = write_record
if not record then
  extra_writes[2] = { 'EXPIRE', worker_key, '86400' }
end
commit()

if sleeping > 0 then
  for queue in pairs(serves) do
    pcall_write('ZADD', prefix .. 'sleepers:' .. queue, now_text, worker)
    pcall_write('EXPIRE', prefix .. 'sleepers:' .. queue, '60')
  end
elseif asleep > 0 then
  for queue in pairs(serves) do
    pcall_write('ZREM', prefix .. 'sleepers:' .. queue, worker)
  end
end
for queue in pairs(serves) do
  if more or asleep == 2 then -- who cannot take what it was woken for wakes another
    counts[queue] = max(counts[queue] or 0, 1)
  elseif #kept < want then -- what this call scheduled it also claimed, and this worker knows when the next is due
    counts[queue] = nil
  end
  local at = soonest[queue]
  if at and at > now and (not next_due or at < next_due) then
    next_due = at
  end
end
notify()
return { OK, now, want > 0 and more and now or next_due or 0, sleeping, answers, kept, missed }
