-- What is registered for one incarnation in each of many namespaces.
-- KEYS  owners of each namespace
-- ARGV  incarnation
-- Reply per namespace: count and checksum, 0 for what is not there or cannot be read
-- Given several namespaces it touches several hash tags: it is then for one Redis only.

local incarnation, checksum = ARGV[1], ARGV[1] .. '#'
local reply = {}
for at, owners in ipairs(KEYS) do
  local found = redis.pcall('HMGET', owners, incarnation, checksum)
  reply[2 * at - 1] = tonumber(found[1] or '') or 0
  reply[2 * at] = tonumber(found[2] or '') or 0
end
return reply
