-- Claims ids of one namespace for an incarnation.
-- Reply {status, claim, resumption, …}: CLAIMED and the new claim, TAKEN and the claim that
--       stands, FULL and "", or LATE and "" for a claim whose caller has given up; for a claim that was won
--       in a namespace with a history, the place of the last message in it, "epoch number"; behind that, for
--       an id that comes back, the place up to which it has everything, and the claim that was replaced
-- The owner of a claim that is replaced is told on the channel of the namespace, in order with all
-- messages there. A retry that finds its own nonce keeps that claim, under the present incarnation; one
-- that finds a claim newer than its first attempt has lost its own to it.

local members = KEYS[1]
local owners = KEYS[2]
local numbers = KEYS[3] -- of the namespace's channel; the last release there made it expire soon
local profiles = KEYS[4]
local sender = ARGV[1]
local channel = ARGV[2]
local events_channel = ARGV[3]
local incarnation = ARGV[4]
local start = ARGV[5] -- of the node
local node = ARGV[6]
local conflict = ARGV[7] -- TAKEOVER, REJECT, or SAME_USER: from a connection of the same user alone
local dead = ARGV[8] -- an incarnation that is known to be dead, or ""
local most = tonumber(ARGV[9]) -- members that the namespace may have
local history = ARGV[10] -- the setting that this node asks for, or ""
local counted_by = ARGV[11] -- the last digits of epochs that this server began; "" for one Redis
local told_count = tonumber(ARGV[12])
local told = list(ARGV, 13, 2, told_count) -- place, profile
local claims = list(ARGV, told.last + 1, 5) -- id, nonce, first_attempt, not_after, reader
-- place: of the claim that has a profile; times in µs of Redis; first_attempt is 0 when this is the first;
-- reader: see positions.lua

local now = now_us()
local own_start = start .. '.'
local registered = redis.call('HMGET', members, unpack(column(claims, 1)))
local before = redis.call('HLEN', members)
local room = most - before

local reply = {}
local fields = {}
local changes = {}
local taken = {''}
local events = {}
local entries = {}
local unclaimed = {} -- ids that had another owner, whose profile goes
local won = {} -- the places of claims that were won, or are held
local replaced = {} -- by the place of a claim: the one that it has replaced
local profile_of = {}
for _, place, profile in each(told) do profile_of[tonumber(place)] = profile end

local function may_take_over(i, id, mark)
  if conflict ~= SAME_USER then return conflict == TAKEOVER end
  return user_of(profile_of[i]) == user_of(profile_of_mark(redis.call('HGET', profiles, id), mark))
end

for i, id, nonce, first_attempt, not_after in each(claims) do
  local first = tonumber(first_attempt)
  local standing = registered[i]
  local holder, time, holder_nonce
  if standing then
    holder, time, holder_nonce = parse(standing)
    standing = holder and standing
  end
  local own = standing and holder_nonce == nonce and string.sub(holder, 1, #own_start) == own_start
  local newer = standing and first > 0 and tonumber(time) > first
  local status, claim = CLAIMED, standing
  if now > tonumber(not_after) then
    status, claim = LATE, ''
  elseif standing and not own and holder ~= dead
    and (newer or not may_take_over(i, id, time .. ':' .. holder_nonce)) then
    status = TAKEN
  elseif not standing and room <= 0 then
    status, claim = FULL, ''
  elseif not own or holder ~= incarnation then
    local mine = now
    if own then
      mine = time
    elseif standing then
      mine = math.max(now, tonumber(time) + 1)
      taken[#taken + 1] = TAKEN_ITEM .. packed(id) .. packed(standing)
      unclaimed[#unclaimed + 1] = id
    else
      room = room - 1
    end
    if standing then tally(changes, holder, -1, time) end
    tally(changes, incarnation, 1, mine)
    mine = own and time or digits(mine)
    claim = incarnation .. ':' .. mine .. ':' .. nonce
    fields[#fields + 1] = id
    fields[#fields + 1] = claim
    local profile = some(profile_of[i])
    if profile then
      entries[#entries + 1] = id
      entries[#entries + 1] = profile_entry(mine, nonce, profile)
    end
    if not own then events[#events + 1] = event('join', id, node, profile) end
  end
  reply[3 * i - 2], reply[3 * i - 1], reply[3 * i] = status, claim, ''
  if status == CLAIMED then
    won[#won + 1] = i
    if standing and not own then replaced[i] = standing end
  end
end
if #fields > 0 then
  redis.call('HSET', members, unpack(fields))
  write_tallies(owners, changes)
  if history ~= '' then
    make_history(redis, server, mended).renew(numbers, history, counted_by)
  elseif before == 0 then
    redis.call('EXPIRE', numbers, DAY)
  end
end
local epoch, last = place_in(#won > 0 and redis.call('HGET', numbers, 'epoch'))
if epoch then
  local positions = make_positions(redis, server, mended)
  local resumptions = positions.claim(numbers, claims, won, replaced, epoch, last[1])
  for i, resumption in pairs(resumptions) do reply[3 * i] = resumption end
end
if #unclaimed > 0 then redis.call('HDEL', profiles, unpack(unclaimed)) end
if #entries > 0 then redis.call('HSET', profiles, unpack(entries)) end
publish_events(owners, events_channel, events)
if #taken > 1 then publish(channel, numbers, sender, 0, taken) end
return reply
