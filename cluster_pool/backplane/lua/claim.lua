-- Claims ids of one namespace for an incarnation.
-- KEYS  members, owners, numbers of the namespace's channel (whose last release let it expire soon)
-- ARGV  sender, channel of the namespace, channel of its events, incarnation, start of the node,
--       node id, "takeover" or "reject", incarnation that is known to be dead (or ""), most members
--       that the namespace may have,
--       then per id: id, nonce, Redis time (µs) of the first attempt (0 when this is the first),
--       not_after (µs)
-- Reply {status, claim, status, claim, …}: CLAIMED and the new claim, TAKEN and the claim that
--       stands, FULL and "", or LATE and "" for what nobody waits for any more
-- A claim that is replaced is told to its owner on the channel of the namespace, in order with
-- everything else there. A retry that finds its own nonce keeps that claim, under the present
-- incarnation; one that finds a claim newer than its first attempt has lost its own to it.

local now = now_us()
local incarnation, start, node = ARGV[4], ARGV[5] .. '.', ARGV[6]
local reject, dead = ARGV[7] == 'reject', ARGV[8]
local ids = {}
for at = 10, #ARGV, 4 do ids[#ids + 1] = ARGV[at] end
local claims = redis.call('HMGET', KEYS[1], unpack(ids))
local before = redis.call('HLEN', KEYS[1])
local room = tonumber(ARGV[9]) - before

local reply = {}
local fields = {}
local changes = {}
local taken = {''}
local events = {}
for i, id in ipairs(ids) do
  local nonce, first, not_after = ARGV[7 + 4 * i], tonumber(ARGV[8 + 4 * i]), ARGV[9 + 4 * i]
  local standing = claims[i]
  local holder, time, holder_nonce
  if standing then
    holder, time, holder_nonce = parse(standing)
    standing = holder and standing
  end
  local own = standing and holder_nonce == nonce and string.sub(holder, 1, #start) == start
  local newer = standing and first > 0 and tonumber(time) > first
  local status, claim = 'CLAIMED', standing
  if now > tonumber(not_after) then
    status, claim = 'LATE', ''
  elseif standing and not own and (reject or newer) and holder ~= dead then
    status = 'TAKEN'
  elseif not standing and room <= 0 then
    status, claim = 'FULL', ''
  elseif not own or holder ~= incarnation then
    local mine = now
    if own then
      mine = time
    elseif standing then
      mine = math.max(now, tonumber(time) + 1)
      taken[#taken + 1] = '\147\7' .. packed(id) .. packed(standing)
    else
      room = room - 1
    end
    if standing then tally(changes, holder, -1, time) end
    tally(changes, incarnation, 1, mine)
    claim = incarnation .. ':' .. (own and time or digits(mine)) .. ':' .. nonce
    fields[#fields + 1] = id
    fields[#fields + 1] = claim
    if not own then events[#events + 1] = event('join', id, node) end
  end
  reply[#reply + 1] = status
  reply[#reply + 1] = claim
end
if #fields > 0 then
  redis.call('HSET', KEYS[1], unpack(fields))
  settle(KEYS[2], changes)
  if before == 0 then redis.call('EXPIRE', KEYS[3], 86400) end
end
publish_events(KEYS[2], ARGV[3], events)
if #taken > 1 then publish(ARGV[2], ARGV[1], 0, taken) end
return reply
