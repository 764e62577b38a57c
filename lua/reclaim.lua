#!lua flags=allow-oom
-- reclaim: running steps whose last heartbeat is too long ago are taken back from their workers
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV reclaimer string
-- ARGV threshold int            µs
-- ARGV tick int                 µs between rounds; 0: no grace after an outage
-- ARGV draw string              0..1, for jitter
-- RETURNS {OK, {run, step, attempt, worker, slug} each, MORE or OK, µs of grace left}
-- EVENTS StepReclaimed StepScheduled StepFailed WorkflowFailed
-- @include lib/open
-- @include lib/outcome
-- @include lib/commit
-- @include lib/expand
-- @include lib/wake
-- @include lib/once
local BATCH = 100

-- An outage of Redis is no crash of every worker: after a gap between rounds, or a move of the clock, one threshold must pass in
-- which the living can renew their leases.
local function grace_left()
  if tick == 0 then
    return 0
  end
  local state = call('HMGET', meta, 'tick', 'calm', 'skewed')
  local last, calm = tonumber(state[1]), tonumber(state[2]) or 0
  local gap = max(threshold / 2, 2 * tick)
  if not last or now - last > gap or skew_moved or (tonumber(state[3]) or 0) > last then
    calm = now + threshold
  end
  extra_writes[#extra_writes + 1] = { 'HSET', meta, 'tick', now, 'calm', calm }
  return max(0, calm - now)
end

local function crash(run, name, worker, crashes)
  local s, planned = run.steps[name], plan_step(run.plan, name)
  local budget = planned and planned.crashes or math.huge
  if crashes > budget then
    local message = "worker '" .. worker .. "' stopped sending heartbeats while it ran step '" .. name .. "'"
    return fail_unheard(run, name, s.ended, 'WorkerCrashed', message, 'worker-crash')
  end
  local tiers = planned and planned.tiers or DEFAULT_TIERS
  local _, _, tier = tier_of(tiers, s.failures + 1)
  schedule(run, name, 'r', s.attempt + 1, retry_delay(tier, 2, true, tonumber(draw)))
end

local function reclaim_step(run, name, beat)
  local s = run.steps[name]
  local lease = s.lease > 0 and s.lease or s.ended
  local start = start_at(run, name, format('%d', lease))
  local worker = start and start.wi or 'unknown'
  local attempt = s.attempt
  emit(run, 'StepReclaimed', name, map(6, pair('a', attempt) .. pair('ow', worker)
    .. pair('rb', reclaimer) .. pair('lh', beat) .. pair('th', threshold) .. pair('sd', now - beat)))
  reclaimed(s)
  crash(run, name, worker, s.crashed)
  return { run.id, name, attempt, worker, slug_of(run) }
end

local grace, taken, more = grace_left(), {}, OK
if grace == 0 then
  local stale = call('ZRANGE', prefix .. 'running', '-inf', '(' .. format('%d', now - threshold), 'BYSCORE', 'LIMIT', 0, BATCH,
    'WITHSCORES')
  for i = 1, #stale, 2 do
    local id, name = match(stale[i], '^([^|]*)|(.*)$')
    local run = load_run(id, name)
    if not run then
      return { TORN }
    end
    local s = run.steps[name]
    if not run.dropped and LIVE[run.status] and s.status == 'r' then
      local ok, what = pcall(reclaim_step, run, name, tonumber(stale[i + 1]))
      if ok then
        taken[#taken + 1] = what
      else
        drop(run, what)
      end
    elseif not LIVE[run.was_status] then
      take_out(here.running, stale[i]) -- an ended run whose members are still being taken away
    end
  end
  more = #stale == 2 * BATCH and MORE or OK
end
local kept = {}
for _, what in ipairs(taken) do
  if not runs[what[1]].dropped then
    kept[#kept + 1] = what
  end
end
expand_one()
if torn then
  return { TORN }
end
local answer = keep({ OK, kept, more, grace })
commit()
notify()
return answer
