-- A run from its submission: RunSubmitted, and its root steps scheduled.
-- @include lib/advance
local submission, submit_run
do
  local ROOT = pair('a', 1) .. '\161r\161i'
  local root_data -- by delay: nearly always the same

  each_call(function()
    root_data = {}
  end)

  -- the k-th run of a call, which begins k µs after `now`, so that runs of one call keep their order by the time of their first event
  function submission(id, d, envelope, input, k)
    local run = new_run(id)
    run.seq = k
    submitted(run, d, (emit(run, 'RunSubmitted', '', envelope, input)), input, now, k)
    local roots = run.plan.roots
    for i = 1, min(#roots, FAN_OUT) do
      local s = new_step(run, roots[i])
      run.steps[roots[i]] = s
      -- available when the run is: its own time less what was emitted since
      local delay = run.available - now - run.seq
      local data = root_data[delay]
      if not data then
        data = map(3, ROOT .. pair('dl', delay))
        root_data[delay] = data
      end
      emit(run, 'StepScheduled', roots[i], data)
      scheduled(run, roots[i], s, 1, run.available)
    end
    if run.plan.fan then
      rare_of(run).expand = true
    end
    return run
  end

  function submit_run(id, d, envelope, input, k)
    local run = submission(id, d, envelope, input, k)
    runs[id], runs[#runs + 1] = run, run
    return run
  end
end
