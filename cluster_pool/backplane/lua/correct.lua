-- Corrects the count and checksum of one owner in one namespace.
-- Reply {LATE}, or {OK}

local members = KEYS[1]
local owners = KEYS[2]
local profiles = KEYS[3] -- go with the last member
local not_after = ARGV[1] -- µs
local incarnation = ARGV[2]
local count = ARGV[3] -- what is added to its count
local checksum = ARGV[4] -- what is added to its checksum

if late(not_after) then return {LATE} end -- the difference was found again, or its owner is gone
if redis.call('HINCRBY', owners, incarnation, count) > 0 then
  redis.call('HINCRBY', owners, incarnation .. '#', checksum)
else
  redis.call('HDEL', owners, incarnation, incarnation .. '#')
end
if redis.call('EXISTS', members) == 0 then redis.call('DEL', owners, profiles) end
return {OK}
