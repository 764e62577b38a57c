-- What a call did. One enum for every script; `redisflow/backend/replies.py` holds the same names and numbers (a test compares).
local OK = 0          -- done as asked
local ALREADY = 1     -- the same call was done before: success, nothing written
local STALE = 2       -- the lease is no longer the step's current one
local CONFLICT = 3    -- this lease ended before, in another way: {CONFLICT, kind}
local RUN_ENDED = 4   -- the run is terminal; the outcome is not stored
local GONE = 5        -- no such run
local REJECTED = 6    -- the outcome raised; nothing of its run was written: {REJECTED, why}
local OLD_TURN = 7    -- a turn older than the lane's last
local NO_PLAN = 8     -- the plan is not registered in this partition: register it and repeat
local EPOCH = 9       -- `meta` is missing or of another life of the server
local TORN = 10       -- a queue member without its run: half a partition; nothing was written
local DUPLICATE = 11  -- the run id is in use
local EXISTS = 12     -- the idempotency key was seen before: {EXISTS, run id}
local NOT_DUE = 13    -- the step is not scheduled, or not yet due
local NOT_ENDED = 14  -- the run is still live
local MORE = 15       -- a part is done; call again
