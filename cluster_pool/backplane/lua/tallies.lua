-- What is registered for one incarnation in each of many namespaces.
-- KEYS  owners of each namespace
-- ARGV  incarnation
-- Reply per namespace: count and checksum, 0 for what is not there, -1 for what is no number
-- Given several namespaces it touches several hash tags: it is then for one Redis only.

local incarnation, checksum = ARGV[1], ARGV[1] .. '#'

local function number(found)
  return found and (tonumber(found) or -1) or 0
end

local reply = {}
for at, owners in ipairs(KEYS) do
  local found = redis.call('HMGET', owners, incarnation, checksum)
  reply[2 * at - 1] = number(found[1])
  reply[2 * at] = number(found[2])
end
return reply
