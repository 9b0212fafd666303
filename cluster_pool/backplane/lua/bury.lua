-- Ends an incarnation for good, so that its members may be reaped: a lease that is gone is never
-- renewed, and its claims carry a deadline that is past.
-- Reply 1 when it is dead now, 0 when its lease goes on

local leases = KEYS[1]
local incarnations = KEYS[2]
local nodes = KEYS[3]
local infos = KEYS[4]
local dead = KEYS[5]
local epoch = KEYS[6] -- is deleted with the last lease
local headrooms = KEYS[7]
local incarnation = ARGV[1]
local why = ARGV[2] -- OWN: its own node gives it up; EXPIRED: its lease must be over; ORPHAN: it has
-- entries, but no lease

local ends = redis.call('ZSCORE', leases, incarnation)
if why ~= OWN and ends and tonumber(ends) > now_us() / 1000 then return 0 end
redis.call('ZREM', leases, incarnation)
redis.call('HDEL', infos, incarnation)
redis.call('HDEL', headrooms, incarnation)
local node = redis.call('HGET', incarnations, incarnation)
-- An incarnation without a known node may still have members. One that has neither node nor lease was
-- buried and reaped by another node before.
if node or ends or why ~= EXPIRED then redis.call('HSET', dead, incarnation, node or '') end
if node and redis.call('HGET', nodes, node) == incarnation then
  redis.call('HDEL', nodes, node)
elseif why ~= EXPIRED then
  local present = redis.call('HGETALL', nodes)
  for at = 1, #present, 2 do
    if present[at + 1] == incarnation then redis.call('HDEL', nodes, present[at]) end
  end
end
if redis.call('EXISTS', leases) == 0 then redis.call('DEL', epoch) end
return 1
