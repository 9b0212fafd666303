-- Grants a drainer its share of the cluster's closes per second. core/drain_budget.py explains the rule
-- and is the same rule for one process; a test compares the two.
-- Reply {LATE}, {DONE}, or {OK, rate, budget, needed, renew (ms), lasts (ms), drainers, living,
--       acceptors, 1 if there are no acceptors and all other nodes drain or have announced their stop}
-- An entry is "state remaining rate deadline most seen expiry starved total", times in Redis ms,
-- "-" for no deadline and for no rate named. A call reads all entries, often a hundred, so it makes no
-- table for an entry and converts no number without need.

local drains = KEYS[1]
local calm_key = KEYS[2]
local leases = KEYS[3]
local headrooms_key = KEYS[4]
local budget_key = KEYS[5]
local incarnations = KEYS[6]
local not_after = ARGV[1] -- µs
local node = ARGV[2]
local own = ARGV[3] -- its incarnation
local state = ARGV[4] -- "draining", "paused", "announcing" or "done"
local remaining = tonumber(ARGV[5])
local total = ARGV[6]
local time_left = tonumber(ARGV[7]) -- ms, -1 without a deadline
local max_rate = ARGV[8] -- closes per second that it names for the cluster, "" for none
local spent = tonumber(ARGV[9]) -- closes per second that it does now
local known = ARGV[10] -- "known" if it had a lease before
local closable = tonumber(ARGV[11]) -- closes per second that it can do

if late(not_after) then return {LATE} end
local now = math.floor(now_us() / 1000)
redis.call('HDEL', headrooms_key, own) -- a node that drains accepts no newcomers
if state == 'done' then
  redis.call('HDEL', drains, node)
  return {DONE}
end

local headrooms = redis.call('HGETALL', headrooms_key)
local accepts = {}
for at = 1, #headrooms, 2 do accepts[headrooms[at]] = headrooms[at + 1] end
local alive = redis.call('ZRANGEBYSCORE', leases, '(' .. digits(now), '+inf')
local headroom, acceptors = 0, 0
for _, incarnation in ipairs(alive) do
  if accepts[incarnation] then
    headroom = headroom + (tonumber(accepts[incarnation]) or 0)
    acceptors = acceptors + 1
  end
end

local budget = tonumber(redis.call('GET', budget_key) or '') or math.huge
local needed, weight = 0, 0
local function count(left, deadline, most)
  local floor = deadline == '-' and 0 or left / math.max(deadline - now, 1) * 1000
  needed = needed + floor
  weight = weight + left
  budget = math.min(budget, most == '-' and 0.7 * headroom or tonumber(most))
  return floor
end

local drainers, held, held_since, starved = 1, 0, 0, nil
local stopping = {[node] = true}
local stored = redis.call('HGETALL', drains)
for at = 1, #stored, 2 do
  local word, left, rate, deadline, most, seen, expiry, hungry =
    string.match(stored[at + 1], '^(%l+) (%d+) (%d+%.?%d*) (%-?%d*) (%-?%d*%.?%d*) (%d+) (%d+) (%d+)')
  expiry = tonumber(expiry or 0)
  if expiry <= now or expiry > now + 60000 then -- over, or the clock has been set back since
    redis.call('HDEL', drains, stored[at])
  elseif stored[at] == node then
    starved = tonumber(hungry)
  else
    drainers = drainers + 1
    if acceptors == 0 and word ~= 'paused' then stopping[stored[at]] = true end
    if word == 'draining' then
      rate = tonumber(rate)
      held = held + rate
      if rate > 0 then held_since = math.max(held_since, tonumber(seen)) end
      count(math.max(0, left - rate * (now - seen) / 1000), deadline, most)
    end
  end
end

local renew = math.min(math.max(1000, 20 * drainers), 5000)
local again = renew
if not starved and known == KNOWN then redis.call('SET', calm_key, '1', 'PX', 2 * renew) end
starved = starved or 0
local calm = redis.call('EXISTS', calm_key) == 1
local deadline = time_left < 0 and '-' or digits(now + time_left)
local most = max_rate == '' and '-' or max_rate
local floor = count(state == 'draining' and remaining or 0, deadline, most)

local rate = 0
if state == 'draining' then
  local spare = remaining > 0 and math.max(0, budget - needed) * remaining / weight or 0
  local share = math.max(floor, math.min(floor + spare, closable))
  rate = math.min(share, math.max(0, math.max(budget, needed) - held))
  if calm then
    rate = budget > 0 and math.min(rate, spent) or spent -- no budget: the headrooms are lost, too
  end
  if starved >= 2 or (time_left >= 0 and time_left < 5000) then rate = math.max(rate, floor) end
  starved = rate < floor * 0.999 and starved + 1 or 0
  if rate < share / 2 and held_since > 0 then -- ask again when those with too much have renewed
    again = math.max(100, held_since + renew + 100 - now)
  end
end

-- If Redis does not know this node, or has lost its state, it does not know the others either.
local deserted = 0
if acceptors == 0 and not calm then
  local listed, stays = false, false
  for _, incarnation in ipairs(alive) do
    listed = listed or incarnation == own
    stays = stays or not stopping[redis.call('HGET', incarnations, incarnation) or '']
    if stays then break end
  end
  if listed and not stays then deserted = 1 end
end

local function exact(number) return string.format('%.4f', number) end
redis.call('HSET', drains, node, table.concat({state, remaining, exact(rate), deadline, most,
  digits(now), digits(now + 3 * renew), starved, total}, ' '))
redis.call('PEXPIRE', drains, 60000)
return {OK, exact(rate), exact(budget), exact(needed), again, 3 * renew, drainers,
  nodes_of(alive), acceptors, deserted}
