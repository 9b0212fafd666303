-- Replaces an epoch that is older than this Redis process.
-- KEYS  epoch
-- ARGV  the old epoch, the new one
-- Reply the epoch that stands now

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1]) or ''
