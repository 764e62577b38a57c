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
for _, field in ipairs(call('HKEYS', key)) do
  local name = match(field, '^s:(.*)$')
  if name then
    run.steps[name] = new_step(run, name)
  end
end
restate(run)
commit()
return { OK }
