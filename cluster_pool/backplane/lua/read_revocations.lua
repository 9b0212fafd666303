-- Reads revocations in the order in which they were said, a page of them.
-- Reply a flat list: for each its moment (µs), the token's id, and the time (ms) until which it is revoked
--
-- If all were said before the last one that was read, the clock of Redis was set back when none was left:
-- then all are read.

local revoked = KEYS[1]
local revocations = KEYS[2]
local last_read = ARGV[1] -- a moment in µs
local most = tonumber(ARGV[2])

local newest = redis.call('ZREVRANGEBYSCORE', revocations, LATEST, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
if newest and tonumber(newest) < tonumber(last_read) then last_read = '0' end
local found = redis.call('ZRANGEBYSCORE', revocations, '(' .. last_read, LATEST, 'WITHSCORES', 'LIMIT', 0, most)
local reply = {}
for i = 1, #found, 2 do
  reply[#reply + 1] = digits(tonumber(found[i + 1]))
  reply[#reply + 1] = found[i]
  local until_ms = tonumber(redis.call('ZSCORE', revoked, found[i]) or 0)
  reply[#reply + 1] = digits(math.max(0, math.min(until_ms, LATEST)))
end
return reply
