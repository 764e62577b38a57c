#!lua flags=allow-oom
-- sweep: runs past their deadline end as failed; the ended past their retention are named; what is of no use any more goes
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV retention int            µs
-- RETURNS {OK, {run timed out} each, {run to delete} each, MORE or OK, next deadline µs or 0}
-- EVENTS WorkflowFailed
-- @include lib/open
-- @include lib/advance
-- @include lib/commit
-- @include lib/wake
-- @include lib/once
local BATCH = 100

local function time_out(run)
  local message = 'the run did not end within its timeout of ' .. format('%.3f', run.timeout / 1000000) .. ' s'
  end_run(run, 'WorkflowFailed', 3, pair('e', { name = 'RunTimeout', message = message }) .. pair('c', run.done)
    .. pair('f', 'timeout'))
end

local late = call('ZRANGE', prefix .. 'deadlines', '-inf', now, 'BYSCORE', 'LIMIT', 0, BATCH)
local timed_out = {}
for _, member in ipairs(late) do
  local id = match(member, '^run:(.*)$')
  local run = id and load_run(id, '')
  if run and LIVE[run.status] then
    local ok, why = pcall(time_out, run)
    if ok then
      timed_out[#timed_out + 1] = id
    else
      drop(run, why)
    end
  elseif id and not run then
    return { TORN }
  elseif id then
    take_out(set_named('deadlines'), member)
  end
end
local old = call('ZRANGE', prefix .. 'ended', '-inf', now - retention, 'BYSCORE', 'LIMIT', 0, BATCH)
local upcoming = call('ZRANGE', prefix .. 'deadlines', '(' .. now_text, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
extra_writes[1] = { 'ZREMRANGEBYSCORE', prefix .. 'workers', '-inf', now - 86400000000 }
extra_writes[2] = { 'ZREMRANGEBYSCORE', prefix .. 'waiters', '-inf', now - 3600000000 }
local answer = keep({ OK, timed_out, old, (#late == BATCH or #old == BATCH) and MORE or OK, tonumber(upcoming[2]) or 0 })
commit()
notify()
return answer
