-- An event that happens: folded into its run now, written by commit.
-- @include lib/apply
-- @include lib/pack
local function emit(run, kind, name, fields, data, payload)
  local seq = run.seq
  run.seq = seq + 1
  local events = run.events
  events[#events + 1] = { kind, name, data, payload or '' }
  local reducer = apply[kind]
  if reducer then
    reducer(run, name, now + seq, fields, payload or '', now, seq)
  end
  return now + seq
end
