-- Compares what is registered in many namespaces with what a node holds there.
-- KEYS  per namespace: members, owners
-- ARGV  incarnation, then per namespace: its count, its checksum, how many of its ids are looked at,
--       and for each of them: id, claim
-- Reply {places, owners}: the namespaces that differ, by their places from 1 on; and whatever stands
--       as an owner in any of them
-- Given several namespaces it touches several hash tags: it is then for one Redis only.

local incarnation, sum = ARGV[1], ARGV[1] .. '#'
local places, owners, met = {}, {}, {}
local at = 2
for place = 1, #KEYS / 2 do
  local members = KEYS[2 * place - 1]
  local fields = redis.call('HGETALL', KEYS[2 * place])
  local total, count, checksum = 0, '0', '0'
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == incarnation then count = value elseif name == sum then checksum = value end
    if string.sub(name, -1) ~= '#' then
      total = total + (tonumber(value) or math.huge)
      if not met[name] then
        met[name] = true
        owners[#owners + 1] = name
      end
    end
  end
  local same = count == ARGV[at] and checksum == ARGV[at + 1]
    and redis.call('HLEN', members) == total
  local looked_at = tonumber(ARGV[at + 2])
  if same and looked_at > 0 then
    local ids = {}
    for i = 1, looked_at do ids[i] = ARGV[at + 1 + 2 * i] end
    local claims = redis.call('HMGET', members, unpack(ids))
    for i = 1, looked_at do same = same and claims[i] == ARGV[at + 2 + 2 * i] end
  end
  if not same then places[#places + 1] = place end
  at = at + 3 + 2 * looked_at
end
return {places, owners}
