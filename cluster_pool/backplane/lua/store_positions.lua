-- Stores how far ids have received the history of their namespace, by the owners of their claims.
-- Reply OK

local members = KEYS[1]
local numbers = KEYS[2]
local positions = list(ARGV, 1, 3) -- id, mark, entry
-- mark: time and nonce of the claim, "time:nonce"; entry: see positions.lua

local registered = redis.call('HMGET', members, unpack(column(positions, 1)))
local owned = {}
for i, id, mark, entry in each(positions) do
  local claim = registered[i]
  if claim and string.sub(claim, -1 - #mark) == ':' .. mark then
    owned[#owned + 1] = id
    owned[#owned + 1] = entry
  end
end
if #owned > 0 then make_positions(redis, server, mended).store(numbers, owned) end
return OK
