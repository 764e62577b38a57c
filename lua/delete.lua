#!lua flags=allow-oom
-- delete: an ended run goes whole: stream, hash, and every trace in indexes
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV run_id string
-- RETURNS {OK, hash of an idempotency key to forget in another partition, or ''} or {GONE | NOT_ENDED | MORE}; MORE: call again
-- @include lib/open
-- @include lib/commit
-- @include lib/expand
local run = load_run(run_id, '')
if not run then
  take_out(here.terminal, run_id) -- left where an earlier delete could not be written whole
  commit()
  return { GONE }
elseif LIVE[run.status] then
  return { NOT_ENDED }
elseif call('ZSCORE', prefix .. 'expand', run_id) then
  expand_one()
  if torn then
    return { TORN }
  end
  commit()
  return { MORE }
end
local stream = run.stream
local index = 'runs:' .. slug_of(run) .. ':'
local elsewhere = ''
local last_page = 5000 -- entries looked through by one call; a longer stream goes page by page, its oldest entries first

local function drop_submission(value)
  local _, submitted = open_event(value)
  for _, tag in ipairs(submitted.tg or {}) do
    take_out(set_named(index .. 'tag:' .. tag), run_id)
  end
  if submitted.ix then
    elsewhere = submitted.ih
  elseif submitted.ih then
    local key = prefix .. 'idempotency:' .. submitted.ih
    if call('GET', key) == run_id then
      extra_writes[#extra_writes + 1] = { 'DEL', key }
    end
  end
end

local has_failures = call('HEXISTS', run.key, 'e') == 1
local page = call('XRANGE', stream, '-', '+', 'COUNT', has_failures and last_page or 10)
for _, entry in ipairs(page) do
  local values, ms, seq = entry[2], parse_id(entry[1])
  for i = 1, #values, 2 do
    if values[i] == 'RunSubmitted' then -- nearly always the first
      drop_submission(values[i + 1])
    elseif values[i] == 'StepFailed' then
      take_out(set_named('failures'), format('%s|%d-%d', run_id, ms, seq + (i - 1) / 2))
    end
  end
end
runs = {}
if has_failures and #page == last_page and elsewhere == '' then
  extra_writes[#extra_writes + 1] = { 'XTRIM', stream, 'MINID', '=', page[#page][1] }
  extra_writes[#extra_writes + 1] = { 'XDEL', stream, page[#page][1] }
  commit()
  return { MORE }
end
take_out(set_named(index .. STATUS[run.status]), run_id)
take_out(set_named('waiters'), run_id)
take_out(set_named('strays'), run_id)
local function leave_reply() -- a young run tells a repeat of its submit, so the reply stays where the run goes
  return tonumber(run.created) < now - KEPT or keep_reply(prefix .. 'once:' .. run_id, { OK, { OK } })
end
-- retention finds the run by `ended`, so that goes last, and only when all else is gone
if not commit() or not leave_reply() or not write('UNLINK', stream, run.key) or not write('ZREM', prefix .. 'ended', run_id) then
  return { MORE }
end
return { OK, elsewhere }
