-- Replaces the profiles of members of one namespace.
-- Reply one code per id: KEPT, or LOST when its claim is not registered

local members = KEYS[1]
local owners = KEYS[2]
local profiles = KEYS[3]
local events_channel = ARGV[1]
local node = ARGV[2]
local updates = list(ARGV, 3, 4) -- id, time, nonce, profile
-- time and nonce of its claim; "" for no profile

local registered = redis.call('HMGET', members, unpack(column(updates, 1)))
local codes = {}
local events = {}
for i, id, time, nonce, profile in each(updates) do
  local mark = ':' .. time .. ':' .. nonce
  codes[i] = LOST
  if registered[i] and string.sub(registered[i], -#mark) == mark then
    codes[i] = KEPT
    if profile == '' then
      redis.call('HDEL', profiles, id)
    else
      redis.call('HSET', profiles, id, profile_entry(time, nonce, profile))
    end
    events[#events + 1] = event('update', id, node, profile ~= '' and profile or nil)
  end
end
publish_events(owners, events_channel, events)
return table.concat(codes)
