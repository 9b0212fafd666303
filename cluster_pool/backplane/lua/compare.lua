-- Compares what is registered in many namespaces with what a node holds there.
-- Reply {places, owners, others}: the namespaces that differ, by their places from 1 on; the owners in
--       all given namespaces; and place and bounds of each history whose bounds are not those asked for
-- With several namespaces it touches several hash tags, and works on one Redis only.

local spaces = list(KEYS, 1, 3) -- members, owners, numbers
local incarnation = ARGV[1]
local counted_by = ARGV[2] -- the last digits of epochs that this server began; "" for one Redis
local holdings = list(ARGV, 3, 4, spaces.size) -- held, checksum, history, size
local sample = list(ARGV, holdings.last + 1, 2) -- id, claim
-- history: the setting that this node asks for, or ""; `size` claims of each namespace are compared

local sum = incarnation .. '#'
local places, owners_met, met, others = {}, {}, {}, {}
local next_holding = each(holdings)
local first = 1
for place, members, owners, numbers in each(spaces) do
  local _, held, held_sum, history, size = next_holding()
  local fields = redis.call('HGETALL', owners)
  local total, count, checksum = 0, '0', '0'
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == incarnation then count = value elseif name == sum then checksum = value end
    if string.sub(name, -1) ~= '#' then
      total = total + (tonumber(value) or math.huge)
      if not met[name] then
        met[name] = true
        owners_met[#owners_met + 1] = name
      end
    end
  end
  local same = count == held and checksum == held_sum and redis.call('HLEN', members) == total
  size = tonumber(size)
  if same and size > 0 then
    local looked_at = part(sample, first, first + size - 1)
    local claims = redis.call('HMGET', members, unpack(column(looked_at, 1)))
    for i, _, claim in each(looked_at) do same = same and claims[i] == claim end
  end
  first = first + size
  if not same then places[#places + 1] = place end
  local bounds = history ~= '' and held ~= '0'
    and make_history(redis, server, mended).renew(numbers, history, counted_by)
  if bounds and string.sub(history, 1, #bounds + 1) ~= bounds .. ' ' then
    others[#others + 1], others[#others + 2] = place, bounds
  end
end
return {places, owners_met, others}
