-- Claims ids of one namespace for an incarnation.
-- KEYS  members, owners
-- ARGV  not_after (µs), sender, channel of the namespace, channel of its events, incarnation,
--       node id, "takeover" or "reject", incarnation that is known to be dead (or ""),
--       then per id: id, nonce
-- Reply {"LATE"}, or {"OK", status, claim, status, claim, …}:
--       CLAIMED and the new claim, or TAKEN and the claim that stands
-- A claim that is replaced is told to its owner on the channel of the namespace, in order with
-- everything else there. A retry finds its own nonce and answers as the first attempt did.

if late(ARGV[1]) then return {'LATE'} end
local now = now_us()
local incarnation, node, reject, dead = ARGV[5], ARGV[6], ARGV[7] == 'reject', ARGV[8]
local ids = {}
for at = 9, #ARGV, 2 do ids[#ids + 1] = ARGV[at] end
local claims = redis.call('HMGET', KEYS[1], unpack(ids))

local reply = {'OK'}
local fields = {}
local changes = {}
local taken = {}
local events = {}
for i, id in ipairs(ids) do
  local nonce = ARGV[8 + 2 * i]
  local standing = claims[i]
  local holder, time, holder_nonce
  if standing then holder, time, holder_nonce = parse(standing) end
  if standing and holder == incarnation and holder_nonce == nonce then
    reply[#reply + 1] = 'CLAIMED'
    reply[#reply + 1] = standing
  elseif standing and reject and holder ~= dead then
    reply[#reply + 1] = 'TAKEN'
    reply[#reply + 1] = standing
  else
    local mine = now
    if standing then
      mine = math.max(now, tonumber(time) + 1)
      tally(changes, holder, -1, time)
      taken[#taken + 1] = '\147\7' .. packed(id) .. packed(standing)
    end
    local claim = incarnation .. ':' .. digits(mine) .. ':' .. nonce
    tally(changes, incarnation, 1, mine)
    fields[#fields + 1] = id
    fields[#fields + 1] = claim
    events[#events + 1] = event('join', id, node)
    reply[#reply + 1] = 'CLAIMED'
    reply[#reply + 1] = claim
  end
end
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
  settle(KEYS[2], changes)
  redis.call('PUBLISH', ARGV[4], table.concat(events, '\n'))
end
if #taken > 0 then publish(ARGV[3], ARGV[2], 0, table.concat(taken)) end
return reply
