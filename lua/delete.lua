#!lua flags=allow-oom
-- delete: an ended run goes whole: stream, hash, and every trace in indexes
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV run_id string
-- RETURNS {OK | GONE | NOT_ENDED | MORE}; MORE: members of the run are still being taken away, call again
-- @include lib/open
-- @include lib/commit
-- @include lib/expand
local run = load_run(run_id, '')
if not run then
  return { GONE }
elseif LIVE[run.status] then
  return { NOT_ENDED }
elseif call('ZSCORE', prefix .. 'expand', run_id) then
  expand_one()
  commit()
  return { MORE }
end
local index = prefix .. 'runs:' .. slug_of(run) .. ':'
gather(removes, index .. STATUS[run.status], run_id)
gather(removes, prefix .. 'ended', run_id)
gather(removes, prefix .. 'waiters', run_id)
local stream, from = run.key .. ':events', '-'
repeat -- the submission is nearly always the first entry
  local page = call('XRANGE', stream, from, '+', 'COUNT', 10)
  local submitted
  for _, entry in ipairs(page) do
    from = '(' .. entry[1]
    if entry[2][2] == 'RunSubmitted' then
      submitted = cmsgpack.unpack(entry[2][6])
      break
    end
  end
  if submitted then
    for _, tag in ipairs(submitted.tg or {}) do
      gather(removes, index .. 'tag:' .. tag, run_id)
    end
    if submitted.ik then
      local key = prefix .. 'idempotency:' .. (submitted.ih or '')
      if call('GET', key) == run_id then
        extra_writes[#extra_writes + 1] = { 'DEL', key }
      end
    end
  end
until submitted or #page < 10
extra_writes[#extra_writes + 1] = { 'UNLINK', stream, run.key }
runs = {}
commit()
return { OK }
