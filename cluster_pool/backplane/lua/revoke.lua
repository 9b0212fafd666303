-- Records tokens as revoked, and removes those whose time is over.
-- Reply OK
--
-- A reader asks for what was said after a moment, so each has a moment of its own, later than all before.
-- A token that is revoked for a longer time already keeps that. Moments and times above LATEST are none of
-- this library's.

local revoked = KEYS[1]
local revocations = KEYS[2]
local entries = list(ARGV, 1, 2) -- token_id, until_ms

local now = now_us()
local over = redis.call('ZRANGEBYSCORE', revoked, '-inf', digits(now / 1000), 'LIMIT', 0, 1000)
for _, token_id in ipairs(over) do
  redis.call('ZREM', revoked, token_id)
  redis.call('ZREM', revocations, token_id)
end
local last = redis.call('ZREVRANGEBYSCORE', revocations, LATEST, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
local moment = math.max(now, (tonumber(last) or 0) + 1)
for _, token_id, until_ms in each(entries) do
  local present = tonumber(redis.call('ZSCORE', revoked, token_id) or 0)
  if present < tonumber(until_ms) then
    redis.call('ZADD', revoked, until_ms, token_id)
    redis.call('ZADD', revocations, digits(moment), token_id)
    moment = moment + 1
  end
end
local longest = math.min(tonumber(redis.call('ZREVRANGE', revoked, 0, 0, 'WITHSCORES')[2] or 0), LATEST)
redis.call('PEXPIREAT', revoked, digits(longest))
redis.call('PEXPIREAT', revocations, digits(longest))
return OK
