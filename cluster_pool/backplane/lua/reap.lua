-- Removes a batch of the members that a dead incarnation left in one namespace.
-- KEYS  members, owners, numbers of the namespace's channel, emptied
-- ARGV  incarnation, its node id, cursor ("0" to begin), most that are removed, channel of the events,
--       "counted" to end as soon as its count says that nothing is left, "all" when that is doubted,
--       the reaper's name for this removal
-- Reply {cursor, removed, emptied}: "" as cursor when done; 1 when this removal emptied the namespace,
-- now or in a call of the same name before, whose reply may have been lost
-- While a table shrinks HSCAN gives eight times as many as it was asked for, and small hashes it
-- gives whole: what is too much for one call stays, and the next looks from the same cursor.

local function finished()
  return ARGV[6] == 'counted' and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0
end

local emptied = redis.call('HEXISTS', KEYS[4], ARGV[7])
if finished() then return {'', 0, emptied} end
local found = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local cursor = found[1] ~= '0' and found[1] or ''
local most = tonumber(ARGV[4])
local head = ARGV[1] .. ':'
local gone = {}
local changes = {}
local events = {}
for at = 1, #found[2], 2 do
  local id, claim = found[2][at], found[2][at + 1]
  if string.sub(claim, 1, #head) == head then
    if #gone == most then
      cursor = ARGV[3]
      break
    end
    local _, time = parse(claim)
    tally(changes, ARGV[1], -1, time or 0)
    gone[#gone + 1] = id
    events[#events + 1] = event('leave', id, ARGV[2])
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  settle(KEYS[2], changes)
  local empty = redis.call('EXISTS', KEYS[1]) == 0
  publish_events(KEYS[2], ARGV[5], events, empty)
  if empty then
    emptied = 1
    remember(KEYS[4], ARGV[7])
    redis.call('EXPIRE', KEYS[3], 60)
  end
end
if finished() then cursor = '' end
if cursor == '' then redis.call('HDEL', KEYS[2], ARGV[1], ARGV[1] .. '#') end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
return {cursor, #gone, emptied}
