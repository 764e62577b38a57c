-- Plans: the compiled DAG. What was decoded is kept from call to call, up to a bound, and used where the plan's head, which holds the hash
-- of its content, is still the same: after a failover or a restore its number may stand for another plan.
-- @include lib/open
local MOST_KEPT_PLANS = 20000 -- plans and steps of them
local plans -- of this call, by number
local plan_of, plan_step, plan_chunk
do
  local kept_plans, plan_count = {}, 0 -- by key

  each_call(function()
    plans = {}
    if plan_count > MOST_KEPT_PLANS then
      kept_plans, plan_count = {}, 0
    end
  end)

  local function read_plan(key)
    local head = call('HGET', key, 'meta')
    local plan = kept_plans[key]
    if not head or (plan and plan.head == head) then
      return head and plan
    end
    plan = cmsgpack.unpack(head)
    plan.name, plan.head, plan.found = key, head, {}
    kept_plans[key], plan_count = plan, plan_count + 1
    return plan
  end

  function plan_of(number)
    local plan = plans[number]
    if plan == nil then
      plan = number > 0 and read_plan(prefix .. 'plan:' .. number)
      plans[number] = plan
    end
    return plan
  end

  -- the compiled step, or false where the plan has none of this name
  function plan_step(plan, name)
    if not plan then
      return false
    end
    local found = plan.found[name]
    if found == nil then
      local text = call('HGET', plan.name, ':' .. name)
      found = text and cmsgpack.unpack(text) or false
      plan.found[name], plan_count = found, plan_count + 1
    end
    return found
  end

  -- names of the k-th chunk of the plan's steps, in declaration order; nil past the last
  function plan_chunk(plan, k)
    local text = call('HGET', plan.name, '#' .. k)
    return text and cmsgpack.unpack(text) or nil
  end
end
