-- Reads the counters beside channels.
-- Reply per counter: epoch, last number, and where it stood at the former server; "" for each that is not
--       there or cannot be read
-- With counters of several namespaces it touches several hash tags, and works on one Redis only.

local hashes = list(KEYS, 1, 1) -- numbers
local fields = list(ARGV, 1, 3, hashes.size) -- epoch, last, former

local reply = {}
local next_fields = each(fields)
for _, hash in each(hashes) do
  local _, epoch, last, former = next_fields()
  local found = redis.pcall('HMGET', hash, epoch, last, former)
  reply[#reply + 1] = found[1] or ''
  reply[#reply + 1] = found[2] or ''
  reply[#reply + 1] = found[3] or ''
end
return reply
