-- Registers claims that a node holds already under its new incarnation, with their own tokens.
-- KEYS  members, owners
-- ARGV  not_after (µs), sender, channel of the namespace, channel of its events, incarnation,
--       start of the node, node id, then per id: id, time, nonce
-- Reply {"LATE"}, or {"OK", codes}: one digit per id, 1 kept, 0 lost to a claim with a greater token

if late(ARGV[1]) then return {'LATE'} end
local incarnation, start = ARGV[5], ARGV[6] .. '.'
local ids = {}
for at = 8, #ARGV, 3 do ids[#ids + 1] = ARGV[at] end
local claims = redis.call('HMGET', KEYS[1], unpack(ids))

local codes = {}
local fields = {}
local changes = {}
local taken = {''}
local events = {}
for i, id in ipairs(ids) do
  local time, nonce = ARGV[6 + 3 * i], ARGV[7 + 3 * i]
  local claim = incarnation .. ':' .. time .. ':' .. nonce
  local standing = claims[i]
  local kept = true
  if standing and standing ~= claim then
    local holder, holder_time, holder_nonce = parse(standing)
    local own = string.sub(holder, 1, #start) == start
    local newer = tonumber(holder_time) > tonumber(time)
    local same = tonumber(holder_time) == tonumber(time)
    if newer or (same and not own and holder_nonce > nonce) then
      kept = false
    else
      tally(changes, holder, -1, holder_time)
      if not (own and holder_nonce == nonce) then
        taken[#taken + 1] = '\147\7' .. packed(id) .. packed(standing)
      end
    end
  elseif not standing then
    events[#events + 1] = event('join', id, ARGV[7])
  end
  if kept and standing ~= claim then
    tally(changes, incarnation, 1, time)
    fields[#fields + 1] = id
    fields[#fields + 1] = claim
  end
  codes[i] = kept and '1' or '0'
end
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
  settle(KEYS[2], changes)
end
if #events > 0 then redis.call('PUBLISH', ARGV[4], table.concat(events, '\n')) end
if #taken > 1 then publish(ARGV[3], ARGV[2], 0, taken) end
return {'OK', table.concat(codes)}
