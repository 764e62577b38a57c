-- One outcome of a running step: the fence, then what happened. Answers with a code of lib/replies.
-- @include lib/advance
-- @include lib/rollup
local function tier_of(tiers, attempt)
  for index, tier in ipairs(tiers) do
    if attempt <= tier[1] or index == #tiers then
      return index, attempt, tier
    end
    attempt = attempt - tier[1]
  end
end

local function total_attempts(tiers)
  local total = 0
  for _, tier in ipairs(tiers) do
    total = total + tier[1]
  end
  return total
end

local DEFAULT_TIERS = { { 1, 0, 1, 0, 0 } }

-- µs before the attempt that is `within` its tier; a tier starts anew at its base delay
local function retry_delay(tier, within, same_tier, draw)
  if tier[2] == 0 then
    return 0
  end
  local delay = tier[2] * tier[3] ^ (same_tier and within - 2 or 0)
  delay = min(delay, tier[4]) * (1 + tier[5] * (2 * draw - 1))
  return math.floor(max(0, delay))
end

local function fail_terminally(run, name, data, error_text, reason, more, more_pairs)
  if not run.failed then
    rare_of(run).failure = { step = name, error = error_text, reason = reason }
  end
  local at, seq = emit(run, 'StepFailed', name,
    widen(data, 2 + (more or 0), '\161t\195' .. pair('f', reason) .. (more_pairs or '')))
  failed(run, name, run.steps[name], reason, true, now, seq)
  note_failure(run, at, now, seq)
  conclude(run)
end

-- a failure that no worker tells of: it began at `since`, and has no stack
local function fail_unheard(run, name, since, error_name, message, reason)
  local s, none = run.steps[name], redis.sha1hex('')
  local duration, error_text = max(0, now - since), packed({ name = error_name, message = message })
  count_bucket('s', bucket_of(duration))
  fail_terminally(run, name, map(4, pair('a', s.attempt) .. pair('d', duration) .. '\161e' .. error_text
    .. pair('fp', { redis.sha1hex(error_name), redis.sha1hex(message), none, none, none })), error_text, reason)
end

local settle, complete
do
  local function policy_pairs(tiers, index, within)
    if #tiers < 2 then
      return 0, ''
    end
    return 2, pair('pi', index - 1) .. pair('ap', within)
  end

  local function retry_step(run, name, data, error_text, reason, tiers, delay)
    local s = run.steps[name]
    local attempt = s.attempt
    local index, within = tier_of(tiers, s.failures + 1)
    local next_index, next_within = tier_of(tiers, s.failures + 2)
    local more, more_pairs = policy_pairs(tiers, index, within)
    local at, seq = emit(run, 'StepFailed', name, widen(data, 3 + more, '\161t\194' .. pair('f', reason)
      .. pair('nr', now + run.seq + 2 + delay) .. more_pairs))
    failed(run, name, s, reason, false)
    note_failure(run, at, now, seq)
    local retry_pairs = pair('a', attempt) .. pair('na', attempt + 1) .. '\161e' .. error_text
      .. pair('mr', total_attempts(tiers) - 1)
    if #tiers > 1 then
      emit(run, 'StepRetrying', name, map(6, retry_pairs .. pair('tp', #tiers) .. pair('pi', next_index - 1)))
    else
      emit(run, 'StepRetrying', name, map(4, retry_pairs))
    end
    more, more_pairs = policy_pairs(tiers, next_index, next_within)
    schedule(run, name, 'r', attempt + 1, delay, nil, more, more_pairs)
  end

  -- how: "<reason> <draw> <delay µs or -> <fatal 0|1> <bucket of the duration>"; data: the worker's half of StepFailed; error_text: the packed error
  local function fail(run, name, data, error_text, how)
    local reason, draw, after, fatal, took = match(how, '^(%S+) (%S+) (%S+) (%d) ?(%-?%d*)$')
    local s, planned = run.steps[name], plan_step(run.plan, name)
    if took ~= '' then
      count_bucket('s', took)
    end
    local tiers = planned and planned.tiers or DEFAULT_TIERS
    local total = total_attempts(tiers)
    local index, within = tier_of(tiers, s.failures + 1)
    if fatal == '1' or s.failures + 1 >= total then
      if fatal == '0' and total > 1 and reason ~= 'timeout' then
        reason = 'exhausted-retries'
      end
      local more, more_pairs = policy_pairs(tiers, index, within)
      return fail_terminally(run, name, data, error_text, reason, more, more_pairs)
    end
    local next_index, next_within, tier = tier_of(tiers, s.failures + 2)
    local delay = tonumber(after) or retry_delay(tier, next_within, next_index == index, tonumber(draw))
    retry_step(run, name, data, error_text, reason, tiers, delay)
  end

  -- took: the bucket of its duration, or ''
  function complete(run, name, data, payload, took)
    local s, _, seq = run.steps[name], emit(run, 'StepCompleted', name, data, payload)
    if took ~= '' then
      count_bucket('s', took)
    end
    completed(run, name, s, payload, now, seq)
    advance(run, name)
  end

  local function skip(run, name, data)
    local s = run.steps[name]
    emit(run, 'StepSkipped', name, data)
    skipped(run, name, s, s.attempt)
    advance(run, name)
  end

  -- how: "drain", or "unknown <µs>": no code for the step; handed back for that long it fails as step-removed
  local function release(run, name, data, how)
    local s = run.steps[name]
    local patience = match(how, '^unknown (%d+)$')
    if not patience then
      return schedule(run, name, 'r', s.attempt, 0)
    end
    local since = s.kind == 'l' and tonumber(call('HGET', run.key, 'u:' .. name) or now) or now
    local age = now - since
    if age > tonumber(patience) then
      local message = "no worker has had the code of step '" .. name .. "' since it was scheduled"
      return fail_unheard(run, name, s.lease, 'StepRemoved', message, 'step-removed')
    end
    schedule(run, name, 'r', s.attempt, max(1000000, min(30000000, age)), since)
  end

  local SETTLE = {
    c = complete,
    k = skip,
    l = function(run, name, data, payload, how) release(run, name, data, how) end,
    f = function(run, name, data, payload, how) fail(run, name, data, payload, how) end,
  }

  function settle(id, name, lease, kind, data, payload, how)
    local run = load_run(id, name)
    if not run then
      torn = torn or call('ZSCORE', prefix .. 'running', id .. '|' .. name)
      return GONE
    end
    local s = run.steps[name]
    if lease == s.ended and lease ~= 0 then
      return s.kind == kind and ALREADY or { CONFLICT, s.kind }
    elseif not LIVE[run.status] then
      return RUN_ENDED
    elseif s.status ~= 'r' or s.lease ~= lease then
      return STALE
    end
    SETTLE[kind](run, name, data, payload, how)
    return OK
  end
end
