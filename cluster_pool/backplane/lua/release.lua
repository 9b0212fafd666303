-- Gives up claims in one namespace; a claim that is no longer registered is left alone.
-- KEYS  members, owners, emptied, numbers of the namespace's channel (soon nobody counts there)
-- ARGV  channel of the events, node id, then per id: id, claim
-- Reply {codes, emptied}: one digit per id, 1 released, 0 not registered; and the claim whose
--       release emptied the namespace, "" when it is not empty. A retry gets the same answer
--       for a minute.

local ids = {}
for at = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[at] end
local claims = redis.call('HMGET', KEYS[1], unpack(ids))
local remembered = redis.call('GET', KEYS[3])

local codes = {}
local gone = {}
local changes = {}
local events = {}
local emptied = ''
local last = ''
for i, id in ipairs(ids) do
  local claim = ARGV[2 + 2 * i]
  if claims[i] == claim then
    local incarnation, time = parse(claim)
    tally(changes, incarnation, -1, time)
    gone[#gone + 1] = id
    events[#events + 1] = event('leave', id, ARGV[2])
    codes[i] = '1'
    last = claim
  else
    codes[i] = '0'
    if remembered and remembered == claim then emptied = claim end
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  settle(KEYS[2], changes)
  redis.call('PUBLISH', ARGV[1], table.concat(events, '\n'))
  if redis.call('EXISTS', KEYS[1]) == 0 then
    emptied = last
    redis.call('SET', KEYS[3], last, 'PX', 60000)
    redis.call('EXPIRE', KEYS[4], 60)
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end -- somebody's hand was there
return {table.concat(codes), emptied}
