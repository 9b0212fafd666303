-- Notes the namespaces in which an incarnation may hold members, before its first claim there.
-- KEYS  leases, namespaces of the incarnation
-- ARGV  incarnation, then namespaces
-- Reply 1, or 0 when the incarnation has no lease

local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) <= now_us() / 1000 then return 0 end
redis.call('SADD', KEYS[2], unpack(ARGV, 2))
return 1
