#!lua flags=allow-oom
-- repair: a run's derived keys made anew from its stream, unless the stream moved since it was read
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV run_id string
-- ARGV last_id string           stream id of the last event that the caller saw
-- RETURNS {OK | STALE | GONE}
-- @include lib/open
-- @include lib/commit
local key = prefix .. 'run:' .. run_id
local last = call('XREVRANGE', key .. ':events', '+', '-', 'COUNT', 1)[1]
if not last then
  return { GONE }
elseif last[1] ~= last_id then
  return { STALE }
end
-- the hash itself may be wrong, so the run is taken as if every set held it
local run = new_run(run_id)
runs[run_id], runs[1] = run, run
local old_fields = call('HKEYS', key)
refold(run)
run.rewritten = true
local live = LIVE[run.status]
for _, field in ipairs(old_fields) do
  local name = match(field, '^s:(.*)$')
  if name then
    step_of(run, name)
  end
end
for name, s in pairs(run.steps) do
  s.was, s.was_level = '-', s.level
  local queue, member = queue_of(run, name), run_id .. '|' .. name
  if not live or s.status ~= 's' then
    gather(removes, touch_queue(queue, s.level), member)
  end
  if not live or s.status ~= 'r' then
    gather(removes, prefix .. 'running', member)
  end
end
for letter, word in pairs(STATUS) do
  if letter ~= run.status then
    gather(removes, prefix .. 'runs:' .. slug_of(run) .. ':' .. word, run_id)
  end
end
gather(removes, prefix .. (live and 'ended' or 'deadlines'), live and run_id or 'run:' .. run_id)
run.expand = live or nil -- what is ready and not scheduled is looked for again
write(run, 'DEL', key)
commit()
return { OK }
