-- Takes a lease for a new incarnation of a node.
-- Reply {OK, epoch, leases}, or {TAKEN, end of the lease (ms), its incarnation} while another
--       start of a node with this id has a lease

local leases = KEYS[1]
local incarnations = KEYS[2]
local nodes = KEYS[3]
local infos = KEYS[4]
local epoch_key = KEYS[5]
local headrooms = KEYS[6]
local drains = KEYS[7]
local dead = KEYS[8]
local node = ARGV[1]
local start = ARGV[2] -- of the node
local incarnation = ARGV[3]
local ttl_ms = tonumber(ARGV[4])
local info = ARGV[5]
local headroom = ARGV[6] -- connections per second that it can accept, "" when it accepts none
local new_epoch = ARGV[7] -- if there is none; "" for the time
local instead_of = ARGV[8] -- an incarnation of another start with this node id, whose lease ends now;
-- "" for none

local now = now_us()
local present = redis.call('HGET', nodes, node)
if present and string.sub(present, 1, #start + 1) ~= start .. '.' then
  local ends = redis.call('ZSCORE', leases, present)
  if ends and tonumber(ends) > now / 1000 then
    if present ~= instead_of then return {TAKEN, ends, present} end
    redis.call('ZREM', leases, present)
    redis.call('HDEL', infos, present)
    redis.call('HSET', dead, present, node)
  end
end
redis.call('ZADD', leases, digits(now / 1000 + ttl_ms), incarnation)
redis.call('HSET', incarnations, incarnation, node)
redis.call('HSET', nodes, node, incarnation)
redis.call('HSET', infos, incarnation, info)
if not epoch_at(epoch_key) then
  redis.call('SET', epoch_key, new_epoch ~= '' and new_epoch or digits(now))
end
local former = present and redis.call('HGET', headrooms, present)
if former then -- counted once, under the new incarnation, although the former lease goes on
  redis.call('HDEL', headrooms, present)
  redis.call('HSET', headrooms, incarnation, former)
end
set_headroom(headrooms, incarnation, headroom, redis.call('EXISTS', drains) == 1)
return {OK, redis.call('GET', epoch_key), read_leases(leases, dead)}
