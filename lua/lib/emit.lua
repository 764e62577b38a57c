-- An event that happens: noted for commit to write, as lib/stream says; the caller folds it into its run. Answers with its time and
-- its sequence.
-- @include lib/apply
-- @include lib/pack
-- @include lib/stream
local function emit(run, kind, name, data, payload)
  local events, n, seq = run.events, run.count, run.seq
  local value = name .. '\0' .. data .. (payload or '')
  if not events then -- room for two from the start, since a table that grows by steps is rehashed at each
    run.events = { kind, value, false, false }
  else
    events[n + 1] = kind
    events[n + 2] = value
  end
  run.count = n + 2
  run.seq = seq + 1
  return now + seq, seq
end

-- a StepFailed stands in the index of failures too, by its time
local function note_failure(run, at, ms, seq)
  local list = run.rare.failing
  if not list then
    list = {}
    rare_of(run).failing = list
    set_field(run, 'e', '1')
  end
  list[#list + 1] = at
  list[#list + 1] = format('%s|%d-%d', run.id, ms, seq)
end
