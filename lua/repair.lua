#!lua flags=allow-oom
-- repair: a run's derived keys made anew from its stream, and what stands where nothing should taken away; not if the run has moved
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV run_id string            '' for what belongs to no run
-- ARGV last_id string           id of the last event that the caller saw, '' where there is no stream
-- ARGV strays list              two each: key without its prefix, member; '' names the key itself
-- RETURNS {OK | STALE}
-- @include lib/open
-- @include lib/commit
local key = prefix .. 'run:' .. run_id
local last = call('XREVRANGE', key .. ':events', '+', '-', 'COUNT', 1)[1]
if (last and last_event(last) or '') ~= last_id then
  return { STALE }
end

-- a key that is no set goes only where what it stands for is not there: a hash without events, the record of a run that is gone
local function drop_key(name)
  local owner = find(name, 'idempotency:', 1, true) == 1 and (call('GET', prefix .. name) or run_id) or run_id
  if owner == '' or call('EXISTS', prefix .. 'run:' .. owner .. ':events') == 0 then
    extra_writes[#extra_writes + 1] = { 'DEL', prefix .. name }
  end
end

for i = strays, #ARGV, 2 do
  local name, member = ARGV[i], ARGV[i + 1]
  local queue, level = match(name == 'levels' and 'scheduled:' .. member or name, '^scheduled:(.*):(%-?%d+)$')
  local set = queue and level_of(queue, tonumber(level)) or set_named(name)
  if member == '' then
    drop_key(name)
  elseif name ~= 'levels' then
    take_out(set, member)
  elseif not set.touched then -- its head is looked at again
    touch(set)
  end
end
if last then
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
end
commit()
return { OK }
