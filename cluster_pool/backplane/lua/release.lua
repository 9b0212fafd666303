-- Gives up claims in one namespace; a claim that is no longer registered is left alone.
-- KEYS  members, owners, emptied, numbers of the namespace's channel (soon nobody counts there)
-- ARGV  channel of the events, node id, then per id: id, claim
-- Reply one digit per id: 0 not registered, 1 released, 2 its release emptied the namespace
-- Which release emptied it is remembered until its node says that it knows, a day at most: a retry
-- after a lost reply gets the same answer, whatever others did in the namespace meanwhile.

local ids = {}
for at = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[at] end
local claims = redis.call('HMGET', KEYS[1], unpack(ids))
local remembered = redis.call('EXISTS', KEYS[3]) == 1

local codes = {}
local gone = {}
local changes = {}
local events = {}
local last = 0
for i, id in ipairs(ids) do
  local claim = ARGV[2 + 2 * i]
  if claims[i] == claim then
    local incarnation, time = parse(claim)
    if incarnation then
      tally(changes, incarnation, -1, time)
      events[#events + 1] = event('leave', id, ARGV[2])
    end
    gone[#gone + 1] = id
    codes[i] = '1'
    last = i
  elseif remembered and redis.call('HEXISTS', KEYS[3], claim) == 1 then
    codes[i] = '2'
  else
    codes[i] = '0'
  end
end

if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  settle(KEYS[2], changes)
  local empty = redis.call('EXISTS', KEYS[1]) == 0
  publish_events(KEYS[2], ARGV[1], events, empty)
  if empty then
    codes[last] = '2'
    remember(KEYS[3], ARGV[2 + 2 * last])
    redis.call('EXPIRE', KEYS[4], 60)
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
return table.concat(codes)
