-- Adds to the list of namespaces in which an incarnation may hold members, before its first claim there.
-- Reply 1, or 0 when the incarnation has no lease

local leases = KEYS[1]
local namespaces = KEYS[2] -- of the incarnation
local incarnation = ARGV[1]
local names = list(ARGV, 2, 1) -- namespace

local ends = redis.call('ZSCORE', leases, incarnation)
if not ends or tonumber(ends) <= now_us() / 1000 then return 0 end
redis.call('SADD', namespaces, unpack(column(names, 1)))
return 1
