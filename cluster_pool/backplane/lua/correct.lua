-- Puts the count and checksum of one owner in one namespace right.
-- KEYS  members, owners
-- ARGV  incarnation, what is added to its count, what is added to its checksum
-- Reply 1

local incarnation = ARGV[1]
if redis.call('HINCRBY', KEYS[2], incarnation, ARGV[2]) > 0 then
  redis.call('HINCRBY', KEYS[2], incarnation .. '#', ARGV[3])
else
  redis.call('HDEL', KEYS[2], incarnation, incarnation .. '#')
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
return 1
