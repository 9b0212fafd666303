-- Renews a lease that is still held. A lease that is over is never renewed.
-- KEYS  leases, nodes, infos, epoch, headrooms, drains
-- ARGV  node id, incarnation, ttl (ms), info, connections per second that it can take ("" when it
--       takes nobody)
-- Reply {"GONE"}, or {"OK", epoch, living nodes}

local now = now_us()
local ends = redis.call('ZSCORE', KEYS[1], ARGV[2])
if not ends or tonumber(ends) <= now / 1000 then return {'GONE'} end
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return {'GONE'} end
redis.call('ZADD', KEYS[1], digits(now / 1000 + tonumber(ARGV[3])), ARGV[2])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
set_headroom(KEYS[5], ARGV[2], ARGV[5], redis.call('EXISTS', KEYS[6]) == 1)
return {'OK', redis.call('GET', KEYS[4]) or '', living(KEYS[1])}
