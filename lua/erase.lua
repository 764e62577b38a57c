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
local ids = {}
run.erased = {}
for _, event in ipairs(stream_events(run)) do
  if (what == 'terminal' and TERMINAL[event[1]]) or (what == 'steps' and event[2] ~= '' and wanted[event[2]]) then
    local id = format('%d-%d', event[6], event[7])
    ids[#ids + 1] = id
    if event[1] == 'StepFailed' then
      run.erased[#run.erased + 1] = run_id .. '|' .. id
    end
  end
end
load_steps(run, all_steps(run))
for first = 1, #ids, 3000 do
  if not write('XDEL', run.key .. ':events', unpack(ids, first, math.min(first + 2999, #ids))) then
    run.lost = 'events could not be deleted'
  end
end
run.still = true
if not pcall(restate, run, true) then
  note_broken(run)
end
local answer = keep({ OK, #ids })
commit(whole(answer))
return answer
