-- For calls whose OK says that all their events are stored: where one could not be, the answer becomes REJECTED, and runs that the call
-- made are taken away again. What was added to a run that was there stays, and its keys fit its stream.
-- @include lib/commit
local made -- runs that this call makes

each_call(function()
  made = {}
end)

local whole
do
  local function take_away(run)
    run.status = '-' -- not live, so that it leaves the running too
    withdraw(run)
    write_sets()
    write('UNLINK', run.stream, run.key)
  end

  -- for commit to call before the reply is kept
  function whole(answer)
    return function()
      for _, run in ipairs(runs) do
        if run.lost then
          answer[1], answer[2] = REJECTED, 'not all could be written: ' .. run.lost
        end
      end
      for run in pairs(answer[1] == REJECTED and made or {}) do
        if not run.dropped then
          take_away(run)
        end
      end
    end
  end
end
