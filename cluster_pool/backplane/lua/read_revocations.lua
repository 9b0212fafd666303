-- Reads revocations in the order in which they were said, a page of them.
-- Reply a flat list: for each its moment (µs), the token's id, and the time (ms) until which it is revoked

local revoked = KEYS[1]
local revocations = KEYS[2]
local last_read = ARGV[1] -- a moment in µs
local most = tonumber(ARGV[2])

local found = redis.call('ZRANGEBYSCORE', revocations, '(' .. last_read, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
local reply = {}
for i = 1, #found, 2 do
  reply[#reply + 1] = digits(tonumber(found[i + 1]))
  reply[#reply + 1] = found[i]
  reply[#reply + 1] = digits(tonumber(redis.call('ZSCORE', revoked, found[i]) or 0))
end
return reply
