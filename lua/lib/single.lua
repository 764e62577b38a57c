-- One outcome in a call of its own: what complete, fail, skip and release have in common.
-- @include lib/outcome
-- @include lib/commit
-- @include lib/wake
-- @include lib/once
local function settle_alone(id, name, lease, kind, data, payload, how)
  local code = settle(id, name, lease, kind, data, payload, how)
  if torn then
    return { TORN }
  end
  local answer = keep({ code, now })
  commit()
  notify()
  return answer
end
