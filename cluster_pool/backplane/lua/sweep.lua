-- Finds what nothing else would ever remove: leases that end later than their node can have asked for
-- (the clock of Redis was set back since), names that are no incarnations, and incarnations with
-- entries, but without a lease and not being reaped.
-- Reply {cursors, orphans}
-- A lease too far ahead is cut to its full time from now on; its node renews it meanwhile if it lives.

local leases = KEYS[1]
local dead = KEYS[2]
local incarnations = KEYS[3]
local nodes = KEYS[4]
local infos = KEYS[5]
local headrooms = KEYS[6]
local ttl_ms = tonumber(ARGV[1]) -- of a lease whose node is not known
local most = ARGV[2] -- fields of each hash to look at
local cursors = list(ARGV, 3, 1) -- cursor
-- of incarnations, nodes, infos and headrooms

local now = now_us() / 1000
local orphans, met = {}, {}

local function readable(name)
  return #name < 256 and string.find(name, '^[%w_.-]+$')
end

local function cut(incarnation, ends)
  local told = string.match(redis.call('HGET', infos, incarnation) or '', '"lease": ?(%d+%.?%d*)')
  -- the node's info was lost, and comes back with its next heartbeat, at any time
  if not told and redis.call('HEXISTS', incarnations, incarnation) == 1 then return end
  local longest = told and tonumber(told) * 1000 or ttl_ms
  if ends > now + longest + 1000 then
    redis.call('ZADD', leases, digits(now + longest), incarnation)
    note_mended('the lease of ' .. incarnation .. ' ended too far ahead: cut')
  end
end

local far = redis.call('ZRANGEBYSCORE', leases, '(' .. digits(now + ttl_ms + 1000), '+inf',
  'WITHSCORES', 'LIMIT', 0, most)
for at = 1, #far, 2 do cut(far[at], tonumber(far[at + 1]) or math.huge) end
for _, name in ipairs(redis.call('ZRANGE', leases, 0, most)) do
  if not readable(name) then redis.call('ZREM', leases, name) end
end

local function look(key, field, incarnation)
  if not readable(incarnation) then
    redis.call('HDEL', key, field)
    note_mended(key .. ' had a name that is none: deleted')
  elseif key ~= dead and not met[incarnation] then
    met[incarnation] = true
    if not redis.call('ZSCORE', leases, incarnation)
      and redis.call('HEXISTS', dead, incarnation) == 0 then
      orphans[#orphans + 1] = incarnation
    end
  end
end

local function scan(key, cursor)
  local found = redis.call('HSCAN', key, cursor, 'COUNT', most)
  for at = 1, #found[2], 2 do
    local field, value = found[2][at], found[2][at + 1]
    look(key, field, key == nodes and value or field)
  end
  return found[1]
end

scan(dead, '0')
local hashes = {incarnations, nodes, infos, headrooms}
local next_cursors = {}
for i, cursor in each(cursors) do next_cursors[i] = scan(hashes[i], cursor) end
return {next_cursors, orphans}
