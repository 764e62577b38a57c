-- A run's tables made anew from its stream, in order of time. Used where a write raised, where an event came with an earlier time,
-- and where events were deleted.
-- @include lib/emit
local function stream_events(run)
  local found, from, sorted = {}, '-', true
  repeat
    local page = call('XRANGE', run.stream, from, '+', 'COUNT', 1000)
    for _, entry in ipairs(page) do
      local values, ms, seq = entry[2], parse_id(entry[1])
      for i = 1, #values, 2 do
        local name, d, payload, envelope = open_event(values[i + 1])
        found[#found + 1] = { values[i], name, d.ts or ms + seq, d, payload, ms, seq, ms + seq, envelope }
        sorted = sorted and (not d.ts)
        seq = seq + 1
      end
      from = '(' .. entry[1]
    end
  until #page < 1000
  if not sorted then
    table.sort(found, function(a, b)
      if a[3] ~= b[3] then
        return a[3] < b[3]
      end
      return a[8] < b[8]
    end)
  end
  return found
end

local function refold(run)
  -- what the old state put into sorted sets must be known, so that the difference takes it away again
  load_steps(run, all_steps(run))
  local fresh = new_run(run.id)
  local old_steps, was_status, was_ended, seq, rare = run.steps, run.was_status, run.was_ended, run.seq, rare_of(run)
  for slot, value in pairs(fresh) do
    run[slot] = value
  end
  run.was_status, run.was_ended, run.seq, run.rare = was_status, was_ended, seq, rare
  run.submitted, run.own_slug, run.fields, run.fanned, rare.deadline, rare.failing = nil, nil, nil, nil, nil, nil
  local events = stream_events(run)
  for _, event in ipairs(events) do -- the submission stands first whatever its time, since it names the plan
    if event[1] == 'RunSubmitted' then
      apply.RunSubmitted(run, '', event[3], event[4], event[5], event[6], event[7])
      break
    end
  end
  for name, old in pairs(old_steps) do
    local s = new_step(run, name)
    s.was, s.was_level, s.dirty = old.was, old.was_level, true
    run.steps[name] = s
  end
  rare.latest = 0
  for _, event in ipairs(events) do
    local reducer = apply[event[1]]
    if reducer then
      reducer(run, unpack(event, 2, 7))
    end
    if event[1] == 'StepFailed' then
      note_failure(run, event[3], event[6], event[7])
    end
    if event[1] ~= 'LogEntry' then -- no figure looks at log lines
      rare.latest = max(rare.latest, event[3])
    end
  end
end
