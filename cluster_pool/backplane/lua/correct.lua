-- Corrects the count and checksum of one owner in one namespace.
-- Reply 1

local members = KEYS[1]
local owners = KEYS[2]
local profiles = KEYS[3] -- go with the last member
local incarnation = ARGV[1]
local count = ARGV[2] -- what is added to its count
local checksum = ARGV[3] -- what is added to its checksum

if redis.call('HINCRBY', owners, incarnation, count) > 0 then
  redis.call('HINCRBY', owners, incarnation .. '#', checksum)
else
  redis.call('HDEL', owners, incarnation, incarnation .. '#')
end
if redis.call('EXISTS', members) == 0 then redis.call('DEL', owners, profiles) end
return 1
