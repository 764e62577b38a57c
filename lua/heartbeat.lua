#!lua flags=allow-oom
-- heartbeat: a worker renews the leases of its running steps
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV worker string            <id>.<boot>
-- ARGV info string              what the worker says of itself, JSON
-- ARGV leases list              three each: run, step, lease
-- RETURNS {OK, now, code a lease: OK, STALE, RUN_ENDED or GONE}
-- EVENTS StepHeartbeat
-- @include lib/open
-- @include lib/commit
-- @include lib/emit
local EVENT_EVERY = 60000000 -- at most one StepHeartbeat a minute and attempt
local members, checked, codes = {}, {}, {}
for i = leases, #ARGV, 3 do
  local run, code = load_run(ARGV[i], ARGV[i + 1]), OK
  local s = run and run.steps[ARGV[i + 1]]
  if not run then
    -- half a partition: the step runs on, and nobody takes it back meanwhile
    code = call('ZSCORE', prefix .. 'running', ARGV[i] .. '|' .. ARGV[i + 1]) and OK or GONE
  elseif not LIVE[run.status] then
    code = RUN_ENDED
  elseif s.status ~= 'r' or s.lease ~= tonumber(ARGV[i + 2]) then
    code = STALE
  else
    members[#members + 1] = ARGV[i] .. '|' .. ARGV[i + 1]
    checked[#checked + 1] = { run, ARGV[i + 1], s }
  end
  codes[#codes + 1] = code
end
for first = 1, #members, 1000 do
  local last = min(first + 999, #members)
  local beats = call('ZMSCORE', prefix .. 'running', unpack(members, first, last))
  for k = first, last do
    local run, name, s = unpack(checked[k])
    local before = tonumber(beats[k - first + 1] or s.lease)
    if math.floor((now - s.lease) / EVENT_EVERY) > math.floor((before - s.lease) / EVENT_EVERY) then
      emit(run, 'StepHeartbeat', name, map(2, pair('a', s.attempt) .. pair('wi', worker)))
    end
    rare_of(run).touched = true
    s.dirty, s.renewed, s.beat = true, true, max(now, before)
  end
end
local worker_key = prefix .. 'worker:' .. worker
extra_writes[1] = { 'HSET', worker_key, 'info', info }
extra_writes[2] = { 'EXPIRE', worker_key, 86400 }
extra_writes[3] = { 'ZADD', prefix .. 'workers', now_text, worker }
commit()
return { OK, now, codes }
