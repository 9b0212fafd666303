-- Releases claims in one namespace; a claim that is no longer registered is left alone. It is known by its
-- token: an assertion whose reply is on its way has perhaps put it under another lease of its node.
-- Reply one code per id: NOT_REGISTERED, RELEASED, or EMPTIED when its release emptied the namespace
-- Redis keeps which release emptied the namespace until its node confirms that it knows, a day at most:
-- a retry after a lost reply gets the same answer, whatever others did in the namespace meanwhile.

local members = KEYS[1]
local owners = KEYS[2]
local emptied_key = KEYS[3]
local numbers = KEYS[4] -- of the namespace's channel, which may have no subscriber soon
local profiles = KEYS[5]
local events_channel = ARGV[1]
local node = ARGV[2]
local claims = list(ARGV, 3, 3) -- id, claim, entry
-- entry: up to where the id has received the history, see positions.lua; "" if that is not known

local registered = redis.call('HMGET', members, unpack(column(claims, 1)))
local remembered = redis.call('EXISTS', emptied_key) == 1

-- A claim without the number of its lease; nil if it has none, as a value that is no claim.
local function token(claim)
  local start, rest = string.match(claim, '^([%w_-]+)%.%d+(:%d+:%w+)$')
  return start and start .. rest
end

local codes = {}
local gone, gone_claims = {}, {}
local changes = {}
local events = {}
local last, last_claim
local parked = {} -- ids and entries
for i, id, claim, entry in each(claims) do
  local standing = registered[i]
  if standing == claim or standing and token(claim) and token(standing) == token(claim) then
    gone[#gone + 1] = id
    gone_claims[#gone] = standing
    codes[i] = RELEASED
    last, last_claim = i, claim
    if entry ~= '' then
      parked[#parked + 1] = id
      parked[#parked + 1] = entry
    end
  elseif remembered and redis.call('HEXISTS', emptied_key, claim) == 1 then
    codes[i] = EMPTIED
  else
    codes[i] = NOT_REGISTERED
  end
end

if #parked > 0 then make_positions(redis, server, mended).store(numbers, parked) end
if #gone > 0 then
  redis.call('HDEL', members, unpack(gone))
  local profile_of = pop_profiles(profiles, gone, gone_claims)
  for i, id in ipairs(gone) do
    local incarnation, time = parse(gone_claims[i])
    if incarnation then
      tally(changes, incarnation, -1, time)
      events[#events + 1] = event('leave', id, node, profile_of[i])
    end
  end
  write_tallies(owners, changes)
  local empty = redis.call('EXISTS', members) == 0
  publish_events(owners, events_channel, events, empty)
  if empty then
    codes[last] = EMPTIED
    remember(emptied_key, last_claim)
    expire_numbers(numbers)
  end
end
if redis.call('EXISTS', members) == 0 then redis.call('DEL', owners, profiles) end
return table.concat(codes)
