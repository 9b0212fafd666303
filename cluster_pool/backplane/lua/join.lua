-- Takes a lease for a new incarnation of a node.
-- KEYS  leases, incarnations, nodes, infos, epoch, headrooms, drains, dead
-- ARGV  node id, start of the node, incarnation, ttl (ms), info, connections per second that it can
--       take ("" when it takes nobody), epoch if there is none ("" for the time),
--       incarnation of another start that has this node id, and is dead from now on ("" for none)
-- Reply {"OK", epoch, living nodes}, or {"TAKEN", end of the lease (ms), its incarnation} while
--       another start of a node with this id has a lease

local now = now_us()
local present = redis.call('HGET', KEYS[3], ARGV[1])
if present and string.sub(present, 1, #ARGV[2] + 1) ~= ARGV[2] .. '.' then
  local ends = redis.call('ZSCORE', KEYS[1], present)
  if ends and tonumber(ends) > now / 1000 then
    if present ~= ARGV[8] then return {'TAKEN', ends, present} end
    redis.call('ZREM', KEYS[1], present)
    redis.call('HDEL', KEYS[4], present)
    redis.call('HSET', KEYS[8], present, ARGV[1])
  end
end
redis.call('ZADD', KEYS[1], digits(now / 1000 + tonumber(ARGV[4])), ARGV[3])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[4], ARGV[3], ARGV[5])
if not epoch_at(KEYS[5]) then
  redis.call('SET', KEYS[5], ARGV[7] ~= '' and ARGV[7] or digits(now))
end
local former = present and redis.call('HGET', KEYS[6], present)
if former then -- it is counted once, under the new incarnation, although the former one lives on
  redis.call('HDEL', KEYS[6], present)
  redis.call('HSET', KEYS[6], ARGV[3], former)
end
set_headroom(KEYS[6], ARGV[3], ARGV[6], redis.call('EXISTS', KEYS[7]) == 1)
return {'OK', redis.call('GET', KEYS[5]), living(KEYS[1])}
