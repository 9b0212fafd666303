-- Removes a batch of the members that a dead incarnation left in one namespace.
-- KEYS  members, owners
-- ARGV  incarnation, cursor, how many to look at, channel of the events,
--       its leave event as JSON up to the id, and after it
-- Reply {cursor, removed, emptied}: "0" as cursor when done; 1 when the namespace is empty now
-- Ids go into the event as they stand: whoever reaps escapes nothing, so only ids without
-- quotation marks and backslashes are told.

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'0', 0, 0} end
local found = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
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
    if not string.find(id, '["\\]') then events[#events + 1] = ARGV[5] .. id .. ARGV[6] end
  end
end
for at = 1, #gone, 1000 do
  redis.call('HDEL', KEYS[1], unpack(gone, at, math.min(at + 999, #gone)))
end
local emptied = 0
if #gone > 0 then
  settle(KEYS[2], changes)
  if #events > 0 then redis.call('PUBLISH', ARGV[4], table.concat(events, '\n')) end
  if redis.call('EXISTS', KEYS[1]) == 0 then emptied = 1 end
end
local cursor = found[1]
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then cursor = '0' end
return {cursor, #gone, emptied}
