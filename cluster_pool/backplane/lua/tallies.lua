-- Reads the count and checksum of one incarnation in each of many namespaces.
-- Reply per namespace: count and checksum, 0 for one that is not there, -1 for one that is no number
-- With several namespaces it touches several hash tags, and works on one Redis only.

local spaces = list(KEYS, 1, 1) -- owners
local incarnation = ARGV[1]

local checksum = incarnation .. '#'

local function number(found)
  return found and (tonumber(found) or -1) or 0
end

local reply = {}
for _, owners in each(spaces) do
  local found = redis.call('HMGET', owners, incarnation, checksum)
  reply[#reply + 1] = number(found[1])
  reply[#reply + 1] = number(found[2])
end
return reply
