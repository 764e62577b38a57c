#!lua flags=allow-oom
-- erase: events of some steps, or the terminal events of a run, are deleted, and its keys are folded anew
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV request string
-- ARGV run_id string
-- ARGV what string              steps | terminal
-- ARGV steps list
-- RETURNS {OK, events deleted} or {GONE} or {REJECTED, why}
-- @include lib/open
-- @include lib/whole
-- @include lib/once
local TERMINAL = { WorkflowCompleted = true, WorkflowFailed = true, WorkflowCancelled = true }
local run = load_run(run_id, '')
if not run then
  return { GONE }
end
local wanted = {}
for i = steps, #ARGV do
  wanted[ARGV[i]] = true
end
local stream = run.stream
local events, left = stream_events(run), {}
local rare = rare_of(run)
rare.erased, rare.still = {}, true
for _, event in ipairs(events) do
  if (what == 'terminal' and TERMINAL[event[1]]) or (what == 'steps' and event[2] ~= '' and wanted[event[2]]) then
    if event[1] == 'StepFailed' then
      rare.erased[#rare.erased + 1] = format('%s|%d-%d', run_id, event[6], event[7])
    end
  else
    left[#left + 1] = event
  end
end

local function by_id(a, b) -- they come in the order of time
  return a[8] < b[8]
end

-- An entry may hold events that stay beside some that go, so what stays is written anew, each event with its id. That more entries were
-- added than there are tells readers that some are gone.
local function rewrite()
  local fresh = stream .. ':new'
  table.sort(events, by_id)
  table.sort(left, by_id)
  call('UNLINK', fresh)
  for _, event in ipairs(left) do
    call('XADD', fresh, format('%d-%d', event[6], event[7]), event[1], event[2] .. '\0' .. event[9] .. event[5])
  end
  local last = events[#events]
  call('XSETID', fresh, format('%d-%d', last[6], last[7]), 'ENTRIESADDED', #left + 1)
  call('RENAME', fresh, stream)
end

load_steps(run, all_steps(run))
local erased = #events - #left
if erased > 0 and not pcall(rewrite) then
  run.lost = 'events could not be deleted'
  note_broken(run)
  write('UNLINK', stream .. ':new')
end
if not pcall(restate, run, true) then
  note_broken(run)
end
local answer = keep({ OK, erased })
commit(whole(answer))
return answer
