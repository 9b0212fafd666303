-- Grants a drainer its share of the cluster's closes per second. core/ledger.py explains the rule
-- and is the same rule for one process; the two are tested against each other.
-- KEYS  drains, calm, leases, headrooms, budget
-- ARGV  not_after (µs), node, its incarnation, "draining", "paused" or "done", remaining, total,
--       time left (ms, -1 without a deadline), most per second that it names ("" for none), rate
--       that it spends, "known" if it had a lease before, most per second that it can close
-- Reply {"LATE"}, {"DONE"}, or {"OK", rate, budget, needed, renew (ms), lasts (ms), drainers,
--       living, acceptors}
-- An entry is "state remaining total deadline most rate starved seen expiry", times in Redis ms.

if late(ARGV[1]) then return {'LATE'} end
local now = now_us() / 1000
local node, state, remaining = ARGV[2], ARGV[4], tonumber(ARGV[5])
redis.call('HDEL', KEYS[4], ARGV[3]) -- whoever drains takes nobody
if state == 'done' then
  redis.call('HDEL', KEYS[1], node)
  return {'DONE'}
end

local entries, before, drainers = {}, nil, 1
local stored = redis.call('HGETALL', KEYS[1])
for at = 1, #stored, 2 do
  local word, left, total, deadline, most, rate, starved, seen, expiry =
    string.match(stored[at + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  expiry = tonumber(expiry or 0)
  if expiry <= now or expiry > now + 60000 then -- over, or of a clock that has been set back
    redis.call('HDEL', KEYS[1], stored[at])
  else
    local entry = {draining = word == 'draining', rate = tonumber(rate), most = tonumber(most),
      deadline = tonumber(deadline), starved = tonumber(starved), seen = tonumber(seen)}
    entry.left = entry.draining
      and math.max(0, tonumber(left) - entry.rate * (now - entry.seen) / 1000) or 0
    if stored[at] == node then
      before = entry
    else
      entries[#entries + 1] = entry
      drainers = drainers + 1
    end
  end
end

local renew = math.min(math.max(1000, 20 * drainers), 5000)
if not before and ARGV[10] == 'known' and drainers == 1 then -- not its own lease alone was lost
  redis.call('SET', KEYS[2], '1', 'PX', 2 * renew)
end
local time_left = tonumber(ARGV[7])
local mine = {draining = state == 'draining', rate = 0,
  left = state == 'draining' and remaining or 0,
  deadline = time_left < 0 and -1 or now + time_left, most = tonumber(ARGV[8]) or -1,
  starved = before and before.starved or 0}
entries[#entries + 1] = mine

local function floor_of(entry)
  if entry.deadline < 0 then return 0 end
  return entry.left / math.max(entry.deadline - now, 1) * 1000
end

local headrooms = redis.call('HGETALL', KEYS[4])
local accepts = {}
for at = 1, #headrooms, 2 do accepts[headrooms[at]] = tonumber(headrooms[at + 1]) end
local alive = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. digits(now), '+inf')
local headroom, acceptors = 0, 0
for _, incarnation in ipairs(alive) do
  if accepts[incarnation] then
    headroom = headroom + accepts[incarnation]
    acceptors = acceptors + 1
  end
end

local budget = tonumber(redis.call('GET', KEYS[5]) or '') or math.huge
local needed, weight, held, last_seen, again = 0, 0, 0, 0, renew
for _, entry in ipairs(entries) do
  needed = needed + floor_of(entry)
  if entry ~= mine then held = held + entry.rate end
  if entry ~= mine and entry.rate > 0 then last_seen = math.max(last_seen, entry.seen) end
  weight = weight + entry.left
  if entry.draining or entry == mine then
    budget = math.min(budget, entry.most < 0 and 0.7 * headroom or entry.most)
  end
end

if mine.draining then
  local floor = floor_of(mine)
  local spare = remaining > 0 and math.max(0, budget - needed) * remaining / weight or 0
  local share = math.max(floor, math.min(floor + spare, tonumber(ARGV[11])))
  local rate = math.min(share, math.max(0, math.max(budget, needed) - held))
  if redis.call('EXISTS', KEYS[2]) == 1 then
    local spent = tonumber(ARGV[9])
    rate = budget > 0 and math.min(rate, spent) or spent -- without: headrooms are lost, too
  end
  if mine.starved >= 2 or (time_left >= 0 and time_left < 5000) then rate = math.max(rate, floor) end
  mine.starved = rate < floor * 0.999 and mine.starved + 1 or 0
  mine.rate = rate
  if rate < share / 2 and last_seen > 0 then -- when those who hold too much will have renewed
    again = math.max(100, last_seen + renew + 100 - now)
  end
end

local function exact(number) return string.format('%.4f', number) end
redis.call('HSET', KEYS[1], node, table.concat({state, remaining, ARGV[6], exact(mine.deadline),
  exact(mine.most), exact(mine.rate), mine.starved, exact(now), exact(now + 3 * renew)}, ' '))
redis.call('PEXPIRE', KEYS[1], 60000)
return {'OK', exact(mine.rate), exact(budget), exact(needed), exact(again), 3 * renew, drainers, #alive,
  acceptors}
