-- Replaces an epoch that is older than this Redis process.
-- Reply the present epoch

local epoch = KEYS[1]
local old = ARGV[1]
local new = ARGV[2]

if redis.call('GET', epoch) == old then redis.call('SET', epoch, new) end
return redis.call('GET', epoch) or ''
