-- Ends an incarnation for good, so that its members may be reaped: a lease that is gone is never
-- renewed, and its claims carry a deadline that is past.
-- KEYS  leases, incarnations, nodes, infos, dead, epoch (which goes with the last lease), headrooms
-- ARGV  incarnation, "own" when its own node gives it up, "expired" when it must be over, "orphan"
--       when something is known of it, but no lease
-- Reply 1 when it is dead now, 0 when its lease goes on

local incarnation = ARGV[1]
local own = ARGV[2] == 'own'
local ends = redis.call('ZSCORE', KEYS[1], incarnation)
if not own and ends and tonumber(ends) > now_us() / 1000 then return 0 end
redis.call('ZREM', KEYS[1], incarnation)
redis.call('HDEL', KEYS[4], incarnation)
redis.call('HDEL', KEYS[7], incarnation)
local node = redis.call('HGET', KEYS[2], incarnation)
-- Whose node nobody knows any more may have members all the same. Who has neither node nor lease
-- was buried and reaped by others before.
if node or ends or ARGV[2] ~= 'expired' then redis.call('HSET', KEYS[5], incarnation, node or '') end
if node and redis.call('HGET', KEYS[3], node) == incarnation then
  redis.call('HDEL', KEYS[3], node)
elseif ARGV[2] ~= 'expired' then
  local nodes = redis.call('HGETALL', KEYS[3])
  for at = 1, #nodes, 2 do
    if nodes[at + 1] == incarnation then redis.call('HDEL', KEYS[3], nodes[at]) end
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[6]) end
return 1
