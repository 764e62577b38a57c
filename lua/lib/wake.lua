-- Wake-ups, after commit: hints to workers that have nothing to do and to clients that wait. The claim is the truth, so an error here
-- must not turn a committed transition into a failed call.
-- @include lib/commit
local AWAKE = 2000000 -- µs that a worker counts as asleep after its last turn
local notify
do
  -- so many that are there: a subscription ends with its process, long before that counts as stale
  local function wake(queue, count)
    local key = prefix .. 'sleepers:' .. queue
    repeat
      local popped = pcall_write('ZPOPMAX', key, count)
      for i = 1, #popped, 2 do
        if tonumber(popped[i + 1]) <= now - AWAKE then -- and so are all behind it
          return
        elseif pcall_write('SPUBLISH', prefix .. 'wake:' .. popped[i], 'w') ~= 0 then
          count = count - 1
        end
      end
    until count == 0 or #popped == 0
  end

  -- to the workers of steps that were running when their run stopped
  local function tell_stopped(run)
    for name, s in pairs(run.steps) do
      if s.was == 'r' and s.lease ~= 0 then
        local lease = format('%d', s.lease)
        local found, start = pcall(start_at, run, name, lease)
        if found and start then
          pcall_write('SPUBLISH', prefix .. 'wake:' .. start.wi, 'x' .. run.id .. '|' .. name .. '|' .. lease)
        end
      end
    end
  end

  function notify()
    for queue, count in pairs(counts) do
      wake(queue, count)
    end
    for _, run in ipairs(stopped_runs) do
      if not run.dropped then
        tell_stopped(run)
      end
    end
    local waiting = #ended_runs > 0 and pcall_write('ZCARD', prefix .. 'waiters')
    if type(waiting) == 'number' and waiting > 0 then
      local scores = pcall_write('ZMSCORE', prefix .. 'waiters', unpack(ended_runs))
      for i, id in ipairs(ended_runs) do
        if scores[i] then
          pcall_write('SPUBLISH', prefix .. 'done', id)
          pcall_write('ZREM', prefix .. 'waiters', id)
        end
      end
    end
  end
end
