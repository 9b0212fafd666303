-- Removes a batch of the members that a dead incarnation left in one namespace.
-- KEYS  members, owners, numbers of the namespace's channel
-- ARGV  incarnation, its node id, cursor, how many to look at, channel of the events
-- Reply {cursor, removed, emptied}: "0" as cursor when done; 1 when the namespace is empty now

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'0', 0, 0} end
local found = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local head = ARGV[1] .. ':'
local gone = {}
local changes = {}
local events = {}
for at = 1, #found[2], 2 do
  local id, claim = found[2][at], found[2][at + 1]
  if string.sub(claim, 1, #head) == head then
    local incarnation, time = parse(claim)
    tally(changes, incarnation, -1, time)
    gone[#gone + 1] = id
    events[#events + 1] = event('leave', id, ARGV[2])
  end
end
for at = 1, #gone, 1000 do
  redis.call('HDEL', KEYS[1], unpack(gone, at, math.min(at + 999, #gone)))
end
local emptied = 0
if #gone > 0 then
  settle(KEYS[2], changes)
  redis.call('PUBLISH', ARGV[5], table.concat(events, '\n'))
  if redis.call('EXISTS', KEYS[1]) == 0 then
    emptied = 1
    redis.call('EXPIRE', KEYS[3], 60)
  end
end
local cursor = found[1]
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then cursor = '0' end
return {cursor, #gone, emptied}
