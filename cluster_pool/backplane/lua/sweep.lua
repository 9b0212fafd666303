-- Looks for what nobody would ever remove: leases that end later than their node can have asked for
-- (the clock of Redis was set back since), names that are none, and incarnations of which something
-- is registered, but neither a lease nor that they are being reaped.
-- KEYS  leases, dead, incarnations, nodes, infos, headrooms
-- ARGV  how long a lease lasts whose node nobody knows (ms), how many fields of each hash are
--       looked at, then the cursors of the last four
-- Reply {cursors, orphans}
-- A lease too far ahead is cut to its full time from now on, in which its node renews it if it lives.

local now = now_us() / 1000
local orphans, met = {}, {}

local function readable(name)
  return #name < 256 and string.find(name, '^[%w_.-]+$')
end

local function cut(incarnation, ends)
  local told = string.match(redis.call('HGET', KEYS[5], incarnation) or '', '"lease": ?(%d+%.?%d*)')
  -- what a node has told is lost until its next heartbeat: nobody knows how long that may take
  if not told and redis.call('HEXISTS', KEYS[3], incarnation) == 1 then return end
  local longest = told and tonumber(told) * 1000 or tonumber(ARGV[1])
  if ends > now + longest + 1000 then
    redis.call('ZADD', KEYS[1], digits(now + longest), incarnation)
    note_mended('the lease of ' .. incarnation .. ' ended too far ahead: cut')
  end
end

local far = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. digits(now + ARGV[1] + 1000), '+inf',
  'WITHSCORES', 'LIMIT', 0, ARGV[2])
for at = 1, #far, 2 do cut(far[at], tonumber(far[at + 1]) or math.huge) end
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2])) do
  if not readable(name) then redis.call('ZREM', KEYS[1], name) end
end

local function look(key, field, incarnation)
  if not readable(incarnation) then
    redis.call('HDEL', key, field)
    note_mended(key .. ' had a name that is none: deleted')
  elseif key ~= KEYS[2] and not met[incarnation] then
    met[incarnation] = true
    if not redis.call('ZSCORE', KEYS[1], incarnation)
      and redis.call('HEXISTS', KEYS[2], incarnation) == 0 then
      orphans[#orphans + 1] = incarnation
    end
  end
end

local cursors = {}
for i = 2, #KEYS do
  local cursor = i > 2 and ARGV[i] or '0'
  local found = redis.call('HSCAN', KEYS[i], cursor, 'COUNT', ARGV[2])
  for at = 1, #found[2], 2 do
    local field, value = found[2][at], found[2][at + 1]
    look(KEYS[i], field, KEYS[i] == KEYS[4] and value or field)
  end
  if i > 2 then cursors[#cursors + 1] = found[1] end
end
return {cursors, orphans}
