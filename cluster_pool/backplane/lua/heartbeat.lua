-- Renews a lease that is still held. A lease that is over is never renewed. The other entries of the
-- node are written again when they are gone or have changed.
-- Reply {GONE}, or {OK, epoch}

local leases = KEYS[1]
local nodes = KEYS[2]
local infos = KEYS[3]
local epoch_key = KEYS[4]
local headrooms = KEYS[5]
local drains = KEYS[6]
local incarnations = KEYS[7]
local node = ARGV[1]
local incarnation = ARGV[2]
local ttl_ms = tonumber(ARGV[3])
local info = ARGV[4]
local headroom = ARGV[5] -- connections per second that it can accept, "" when it accepts none
local lease_epoch = ARGV[6] -- the epoch under which the lease was taken

local now = now_us() / 1000

local function lives(one)
  local ends = redis.call('ZSCORE', leases, one)
  return ends and tonumber(ends) > now
end

if not lives(incarnation) then return {GONE} end
local present = redis.call('HGET', nodes, node)
if present ~= incarnation then
  if present and lives(present) then return {GONE} end
  redis.call('HSET', nodes, node, incarnation)
  note_mended(nodes .. ' did not have this node: written again')
end
if redis.call('HGET', incarnations, incarnation) ~= node then
  redis.call('HSET', incarnations, incarnation, node)
  note_mended(incarnations .. ' did not have this node: written again')
end
local epoch = epoch_at(epoch_key)
if not epoch then
  epoch = lease_epoch
  redis.call('SET', epoch_key, epoch)
  note_mended(epoch_key .. ' was gone: written again')
end
redis.call('ZADD', leases, digits(now + ttl_ms), incarnation)
redis.call('HSET', infos, incarnation, info)
set_headroom(headrooms, incarnation, headroom, redis.call('EXISTS', drains) == 1)
return {OK, epoch}
