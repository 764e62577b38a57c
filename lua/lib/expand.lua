-- What was too much for one call, some hundred steps at a time: steps ready but not yet scheduled, and members of ended runs.
-- The score of a run in `expand` is the next chunk of its plan's steps; the run leaves the set when its last chunk is done.
-- @include lib/advance
-- @include lib/commit
local expand_one
do
  local EXPAND_CHUNKS = 4
  local expanding -- the run in hand, for the caller to drop should it raise

  local function expand_chunk(run, names)
    load_steps(run, names)
    for _, name in ipairs(names) do
      local s = run.steps[name]
      -- failed, but not the run: its retry was recorded, and not that of the step
      if LIVE[run.status] and (s.status == 'p' or (s.status == 'f' and not run.failed)) and s.unmet == 0 then
        schedule(run, name, s.attempt > 0 and 'r' or (plan_step(run.plan, name) or { deps = {} }).deps[1] and 'd' or 'i',
          s.attempt + 1, run.rare.wait and max(0, run.rare.wait - now - run.seq) or 0)
      elseif LIVE[run.status] and s.status == 'p' then
        local from = skipped_need(run, name)
        if from then
          cascade(run, name, from)
          advance(run, name)
        end
      elseif not LIVE[run.status] and (s.status == 's' or s.status == 'r') then
        local member = run.id .. '|' .. name
        if s.status == 's' then
          take_out(level_of(queue_of(run, name), s.level), member)
        else
          take_out(here.running, member)
        end
      end
    end
  end

  local function expand_next()
    local entry = call('ZRANGE', prefix .. 'expand', '0', '0', 'WITHSCORES')
    if not entry[1] then
      return
    end
    local id, chunk = entry[1], tonumber(entry[2])
    expanding = id
    local run = load_run(id, '')
    if not run or run.rare.expand then
      torn = torn or not run
      return
    end
    local first = LIVE[run.status] and call('XRANGE', run.stream, '-', '+', 'COUNT', 1)[1]
    if first then -- roots of a delayed run wait as long as it does
      local _, d = open_event(first[2][2])
      rare_of(run).wait = d.v or (d.dl and tonumber(run.created) + d.dl) or nil
    end
    for _ = 1, EXPAND_CHUNKS do
      local names = run.plan and plan_chunk(run.plan, chunk) or (chunk == 0 and all_steps(run)) or nil
      if not names or #names == 0 then
        take_out(set_named('expand'), id)
        rare_of(run).expanded = true
        return conclude(run)
      end
      expand_chunk(run, names)
      chunk = chunk + 1
    end
    put(set_named('expand'), chunk, id)
  end

  function expand_one()
    expanding = nil
    local ok, why = pcall(expand_next)
    if not ok and expanding and runs[expanding] then
      drop(runs[expanding], why)
    end
  end
end
