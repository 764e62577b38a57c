-- Plans: the compiled DAG, immutable once written, decoded at most once a call.
local plans = {}

local function plan_of(number)
  local plan = plans[number]
  if plan == nil then
    plan = false
    if number > 0 then
      local key = prefix .. 'plan:' .. number
      local meta_text = call('HGET', key, 'meta')
      if meta_text then
        plan = cmsgpack.unpack(meta_text)
        plan.key, plan.found = key, {}
      end
    end
    plans[number] = plan
  end
  return plan
end

-- the compiled step, or false where the plan has none of this name
local function plan_step(plan, name)
  if not plan then
    return false
  end
  local found = plan.found[name]
  if found == nil then
    local text = call('HGET', plan.key, ':' .. name)
    found = text and cmsgpack.unpack(text) or false
    plan.found[name] = found
  end
  return found
end

-- names of the k-th chunk of the plan's steps, in declaration order; nil past the last
local function plan_chunk(plan, k)
  local text = call('HGET', plan.key, '#' .. k)
  return text and cmsgpack.unpack(text) or nil
end
