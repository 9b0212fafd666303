-- Replaces the profiles of members of one namespace.
-- Reply {LATE}, or {OK, codes}: one per id, KEPT, or LOST when its claim is not registered

local members = KEYS[1]
local owners = KEYS[2]
local profiles = KEYS[3]
local not_after = ARGV[1] -- µs
local events_channel = ARGV[2]
local node = ARGV[3]
local updates = list(ARGV, 4, 4) -- id, time, nonce, profile
-- time and nonce of its claim

if late(not_after) then return {LATE} end
local registered = redis.call('HMGET', members, unpack(column(updates, 1)))
local codes = {}
local events = {}
for i, id, time, nonce, profile in each(updates) do
  local mark = ':' .. time .. ':' .. nonce
  codes[i] = LOST
  if registered[i] and string.sub(registered[i], -#mark) == mark then
    codes[i] = KEPT
    if some(profile) then
      redis.call('HSET', profiles, id, profile_entry(time, nonce, profile))
    else
      redis.call('HDEL', profiles, id)
    end
    events[#events + 1] = event('update', id, node, some(profile))
  end
end
publish_events(owners, events_channel, events)
return {OK, table.concat(codes)}
