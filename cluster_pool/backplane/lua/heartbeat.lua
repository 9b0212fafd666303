-- Renews a lease that is still held. A lease that is over is never renewed. What else a node has
-- written of itself is written again when it is gone or is not what it wrote.
-- KEYS  leases, nodes, infos, epoch, headrooms, drains, incarnations
-- ARGV  node id, incarnation, ttl (ms), info, connections per second that it can take ("" when it
--       takes nobody), epoch of the lease
-- Reply {"GONE"}, or {"OK", epoch, living nodes}

local now = now_us() / 1000
local node, incarnation = ARGV[1], ARGV[2]

local function lives(one)
  local ends = redis.call('ZSCORE', KEYS[1], one)
  return ends and tonumber(ends) > now
end

if not lives(incarnation) then return {'GONE'} end
local present = redis.call('HGET', KEYS[2], node)
if present ~= incarnation then
  if present and lives(present) then return {'GONE'} end
  redis.call('HSET', KEYS[2], node, incarnation)
  note_mended(KEYS[2] .. ' did not have this node: written again')
end
if redis.call('HGET', KEYS[7], incarnation) ~= node then
  redis.call('HSET', KEYS[7], incarnation, node)
  note_mended(KEYS[7] .. ' did not have this node: written again')
end
local epoch = epoch_at(KEYS[4])
if not epoch then
  epoch = ARGV[6]
  redis.call('SET', KEYS[4], epoch)
  note_mended(KEYS[4] .. ' was gone: written again')
end
redis.call('ZADD', KEYS[1], digits(now + tonumber(ARGV[3])), incarnation)
redis.call('HSET', KEYS[3], incarnation, ARGV[4])
set_headroom(KEYS[5], incarnation, ARGV[5], redis.call('EXISTS', KEYS[6]) == 1)
return {'OK', epoch, living(KEYS[1])}
