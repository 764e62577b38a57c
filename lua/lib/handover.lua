-- Handing over: a submit claims its step for a worker that sleeps, and the wake-up brings the step along. That saves the worker a turn
-- and the step two ways between processes. Field `hand` of the worker's key says how things stand: `o<slot><pairs of StepStarted>` is
-- an offer, left by a turn that got less than it wanted and withdrawn by the next; `h<lease> <slot><run>|<step>` was handed over. The
-- message, h<lease>, run, step, plan number, attempt and input by lines, may be lost, so each turn says which lease arrived last, and gets
-- in its answer what did not arrive.
-- @include lib/light
-- @include lib/wake
local MOST_INPUT = 65536 -- bytes that a message brings; what is longer is fetched by the worker
local SLOT = 3 -- bytes of a packed slot number
local find_offer, hand_over, deliver, find_missed
do
  local handing

  each_call(function()
    handing = nil
  end)

  -- whether something stands in a queue that is due: it goes first
  local function has_due(queue)
    local due = call('ZRANGE', prefix .. 'levels', '-inf', now_text, 'BYSCORE', 'LIMIT', '0', '1000')
    for i = 1, #due do
      if match(due[i], '^(.*):') == queue then
        return true
      end
    end
    return false
  end

  -- the offer of the worker that was the last to fall asleep; its process is there, since its subscription is. What fails here fails no
  -- submit
  function find_offer(queue)
    local last = pcall_write('ZRANGE', prefix .. 'sleepers:' .. queue, '0', '0', 'REV', 'WITHSCORES')
    local worker = last[1]
    if not worker or tonumber(last[2]) <= now - AWAKE then
      return nil
    end
    local worker_key, channel = prefix .. 'worker:' .. worker, prefix .. 'wake:' .. worker
    local hand = pcall_write('HGET', worker_key, 'hand')
    if type(hand) ~= 'string' or sub(hand, 1, 1) ~= 'o' or has_due(queue) then
      return nil
    end
    local listens = pcall_write('PUBSUB', 'SHARDNUMSUB', channel) -- not everybody may ask
    if listens.err or listens[2] == 0 then
      return nil
    end
    return {
      queue = queue, worker = worker, worker_key = worker_key, channel = channel, slot = sub(hand, 2, 1 + SLOT), body = sub(hand, 2 + SLOT),
    }
  end

  -- what a message brings of the input
  local function input_of(input, stored)
    return input == '' and '' or #input <= MOST_INPUT and '=' .. input or stored
  end

  -- a run with its first step claimed, along an edge where there is one
  function hand_over(offer, edge, id, d, envelope, input)
    local handed = edge and handed_edge(edge, id, input ~= '')
    if handed then
      local light, claim = submit_light(handed, id, envelope, input, 0), handed.claim
      light.other_value = claim.starting .. offer.body .. '\162sl' .. offer.slot
      offer.claimed = { id, claim.name, claim.number_of_plan, claim.turns, input_of(input, light.output) }
    else
      local run = submit_run(id, d, envelope, input, 0)
      local name = run.plan.roots[1]
      local attempt = begin_step(run, name, offer.body .. '\162sl', 3, offer.slot)
      offer.claimed = { id, name, run.number, attempt, input_of(input, run.input) }
    end
    handing = offer
  end

  -- after commit
  function deliver()
    if not handing then
      return
    end
    local id, name = unpack(handing.claimed)
    if runs[id] and runs[id].dropped then
      return
    end
    pcall_write('HSET', handing.worker_key, 'hand', 'h' .. now_text .. ' ' .. handing.slot .. id .. '|' .. name)
    pcall_write('ZREM', prefix .. 'sleepers:' .. handing.queue, handing.worker)
    pcall_write('SPUBLISH', handing.channel, 'h' .. now_text .. '\n' .. table.concat(handing.claimed, '\n'))
  end

  -- what was handed over and has not arrived: lease, slot, and the claim where that still stands
  function find_missed(hand, arrived)
    local lease, slot, id, name = match(hand or '', '^h(%d+) (...)([^|]*)|(.*)$')
    lease = tonumber(lease)
    if not lease or lease == arrived then
      return nil
    end
    local ok, claimed = pcall(claim_again, id, name, lease) -- what raises is left to the reclaimer
    return { lease, slot, ok and claimed or nil }
  end
end
