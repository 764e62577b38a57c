-- Phase 2 of light runs: those of an edge one after another, first what they change in the sorted sets, then entry and hash of each.
-- @include lib/light
do
  local used_edges = {}

  each_call(function()
    for _, edge in ipairs(used_edges) do -- of a call that ended without writing
      edge.used = 0
    end
    used_edges = {}
  end)

  -- room for so many more in a set
  local function adding_to(set, count)
    local n = set.adding
    if not set.touched then
      touch(set)
    end
    set.adding = n + 2 * count
    return set.add, n
  end

  local function removing_from(set, count)
    local n = set.removing
    if not set.touched then
      touch(set)
    end
    set.removing = n + count
    return set.remove, n
  end

  local function move_run(edge, group, count)
    if edge.out_of then
      local list, n = removing_from(edge.out_of, count)
      for i = 1, count do
        list[n + i] = group[i].id
      end
    end
    local list, n = adding_to(edge.into, count)
    for i = 1, count do
      local light = group[i]
      list[n + 1], list[n + 2] = light.created, light.id
      n = n + 2
    end
  end

  local function move_handed(edge, group)
    put(here.running, now_text, group[1].id .. edge.roots[1].tail)
  end

  local function move_submissions(edge, group, count)
    if edge.claim then
      return move_handed(edge, group)
    end
    local first = now + group[1].place
    for _, root in ipairs(edge.roots) do
      local list, n = adding_to(root.level_set, count)
      local tail = root.tail
      for i = 1, count do
        local light = group[i]
        list[n + 1], list[n + 2] = light.created, light.id .. tail
        n = n + 2
      end
      expect(root.queue, first, count)
    end
  end

  local function move_claims(edge, group, count)
    local left, m = removing_from(edge.level_set, count)
    local list, n = adding_to(here.running, count)
    local waits = buckets.w
    for i = 1, count do
      local light = group[i]
      local member, bucket = light.queued, light.bucket
      left[m + i] = member
      waits[bucket] = (waits[bucket] or 0) + 1
      list[n + 1], list[n + 2] = now_text, member
      n = n + 2
    end
  end

  local function move_ends(edge, group, count)
    local list, n = removing_from(here.running, count)
    local tail, durations = '|' .. edge.name, buckets.s
    for i = 1, count do
      local light = group[i]
      local took = light.bucket
      list[n + i] = light.id .. tail
      if took ~= '' then
        durations[took] = (durations[took] or 0) + 1
      end
    end
    if edge.ends then
      local at = score_text(now + 1)
      list, n = adding_to(here.terminal, count)
      for i = 1, count do
        local light = group[i]
        local id = light.id
        list[n + 1], list[n + 2] = at, id
        n = n + 2
        ended_runs[#ended_runs + 1] = id
        if sub(light.text, ENDED_END + 1) ~= NO_TIME then
          take_out(set_named('deadlines'), 'run:' .. id)
        end
      end
    elseif edge.scheduled then
      local at = edge.claim and now_text or score_text(now + 1)
      list, n = adding_to(edge.claim and here.running or edge.level_set, count)
      tail = '|' .. edge.follower
      for i = 1, count do
        list[n + 1], list[n + 2] = at, group[i].id .. tail
        n = n + 2
      end
      if not edge.claim then
        expect(edge.queue, now + 1, count)
      end
    end
  end

  -- the light runs by edge, and what each edge does to the sorted sets; answers how many events a run has at most
  function sort_lights()
    local most = 0
    for i = 1, light_list[0] do
      local light = light_list[i]
      if lights[light.id] == light then
        local edge = light.edge
        local n = edge.used + 1
        edge.group[n], edge.used = light, n
        if n == 1 then
          used_edges[#used_edges + 1] = edge
        end
      end
    end
    for _, edge in ipairs(used_edges) do
      local group, count, types = edge.group, edge.used, child(written, edge.slug)
      most = max(most, group[count].place + edge.size / 2 - 1)
      types[edge.kinds] = (types[edge.kinds] or 0) + count
      if edge.into then
        move_run(edge, group, count)
      end
      local move = edge.roots and move_submissions or edge.starting and move_claims or move_ends
      move(edge, group, count)
    end
    return most
  end

  local first_id
  local in_hand -- place in its group of the light run that is being written

  local function write_submissions(edge, first)
    local group, entry, size, to_run, roots = edge.group, edge.entry, edge.size, edge.to_run, edge.roots
    local row, width = { false, 'h', false }, 3 + 2 * #roots
    for i, root in ipairs(roots) do
      row[2 + 2 * i] = root.field_name
    end
    row[width + 1] = 'i'
    local times = edge.claim and doubles[now + 2] .. NO_TIME .. NO_TIME or NO_TIMES
    for i = first, edge.used do
      in_hand = i
      local light = group[i]
      local k, input = light.place, light.output
      entry[1], entry[2], entry[4] = light.stream, now_text .. '-' .. k, light.value
      if edge.claim then
        entry[size] = light.other_value
      end
      call('XADD', unpack(entry, 1, size))
      stored = light
      row[1], row[3], row[width + 2] = light.key, to_run .. light.created .. times, input
      local at = struct_pack('<d', now + k)
      for j = 1, #roots do
        row[3 + 2 * j] = roots[j].to_step .. at .. NEVER_RAN
      end
      call('HSET', unpack(row, 1, input and width + 2 or width))
      group[i] = false
    end
    entry[4] = false -- here and below: what outlives the call holds no payload
  end

  local function write_claims(edge, first)
    local group, entry, size, to_run, to_step, begins = edge.group, edge.entry, edge.size, edge.to_run, edge.to_step, edge.into
    local field_name, at = step_fields[edge.name], doubles[now]
    entry[2] = first_id
    for i = first, edge.used do
      in_hand = i
      local light = group[i]
      local text = light.text
      entry[1], entry[size] = light.stream, light.value
      call('XADD', unpack(entry, 1, size))
      stored = light
      call('HSET', light.key, 'h', begins and to_run .. light.created .. at .. sub(text, STARTED_END + 1) or to_run .. sub(text, RUN_STATE + 1),
        field_name, to_step .. at .. sub(light.field, LEASE_END + 1))
      group[i] = false
    end
    entry[size] = false
  end

  -- the times of a dependent: scheduled, claimed, or of what it was
  local function other_times(edge, light)
    local other = light.other
    if edge.scheduled then
      return doubles[edge.claim and now or now + 1] .. (other and sub(other, LEASE_END + 1) or NEVER_RAN)
    end
    return other and sub(other, STEP_STATE + 1) or NO_TIME .. NEVER_RAN
  end

  local function write_ends(edge, first)
    local group, entry, size, to_run, to_step, to_other = edge.group, edge.entry, edge.size, edge.to_run, edge.to_step, edge.to_other
    local ends, claims, at = edge.ends, edge.claim, doubles[now + 1]
    local row, width = { false, 'h', false, step_fields[edge.name], false, output_fields[edge.name], false }, 7
    if to_other then
      row[8], width = step_fields[edge.follower], 9
    end
    entry[2] = first_id
    for i = first, edge.used do
      in_hand = i
      local light = group[i]
      local text = light.text
      entry[1], entry[4] = light.stream, light.value
      row[1], row[5], row[7] = light.key, to_step .. NO_TIME .. sub(light.field, STEP_STATE + 1, LEASE_END) .. 'c', light.output
      if ends then
        entry[6] = '\0' .. end_envelope(edge.turns, light.created, now + 1, 1, edge.total)
        row[3] = to_run .. sub(text, RUN_STATE + 1, STARTED_END) .. at .. sub(text, ENDED_END + 1)
      else
        row[3] = to_run .. sub(text, RUN_STATE + 1)
        if claims then
          entry[size] = light.other_value
        end
      end
      if to_other then
        row[9] = to_other .. other_times(edge, light)
      end
      call('XADD', unpack(entry, 1, size))
      stored = light
      call('HSET', unpack(row, 1, width))
      group[i] = false
    end
    entry[4] = false
  end

  -- one pcall for all that go through, as of other runs
  function write_lights()
    local index, first = 1, 1
    first_id = now_text .. '-0'
    local function go_on()
      while used_edges[index] do
        local edge = used_edges[index]
        local write_all = edge.roots and write_submissions or edge.starting and write_claims or write_ends
        write_all(edge, first)
        index, first, edge.used = index + 1, 1, 0
      end
    end
    repeat
      local ok, why = pcall(go_on)
      if not ok then
        local group = used_edges[index].group
        local light = group[in_hand]
        group[in_hand] = false
        note_broken(light)
        note_remade(light, why)
        first = in_hand + 1
      end
    until ok
    used_edges = {}
  end

  -- those that could not be written become runs with tables, to be made anew from their streams
  function reload_lights(to_mend)
    for i = 1, light_list[0] do
      local light = light_list[i]
      local id, edge, run = light.id, light.edge, nil
      if lights[id] == light and (to_mend[light] or to_mend.all) then
        lights[id] = nil
        if edge.roots then
          run = submission(id, cmsgpack.unpack(light.other), light.other, light.payload_text, light.place)
          runs[id], runs[#runs + 1] = run, run
        else
          run = load_run(id, '')
        end
        run.seq = light.place + edge.size / 2 - 1
        to_mend[run] = true
      end
    end
  end
end
