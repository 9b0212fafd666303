-- How far each id of a namespace with a history has received it. make_positions makes these functions.
--
-- A position is stored with the first claim of an id and again by its owner, and kept for as long as the
-- history when nobody stores it any more: the hash `positions` becomes `former_positions` after that time, with
-- all that is not stored again. An entry is epoch, number and reader; the reader, which a claim names, is who
-- may read what is targeted at the id: a word for one user, "*" for anybody, or "-" for nobody.
--
-- An id may have been taken for gone while its client was connected: its node was cut off. What was parked for
-- it then has reached nobody. So the hash `parked_positions` has the place before the first such message,
-- "epoch number", until the id is claimed anew: no later position is stored, and its node is told.

local NEWEST = '' -- beside the ids: the time in ms at which the hash was begun

local function keys_beside(numbers)
  local stem = string.sub(numbers, 1, -8)
  return stem .. 'positions', stem .. 'former_positions', stem .. 'parked_positions'
end

-- Epoch, number and reader of an entry; nothing if it is none.
local function parse_entry(entry)
  local epoch, number, reader = string.match(entry or '', '^(%d+) (%d+) ([%w_*-]+)$')
  if epoch and #epoch <= 16 and #number < 14 then return epoch, tonumber(number), reader end
end

-- The entries of some ids, by their places; false where there is none.
local function read(numbers, ids)
  local positions, former = keys_beside(numbers)
  local found = redis.call('HMGET', positions, unpack(ids))
  for i, entry in ipairs(found) do
    if not entry then
      local older = redis.call('HMGET', former, unpack(ids))
      for at = i, #ids do found[at] = found[at] or older[at] end
      break
    end
  end
  return found
end

-- The places before what was parked for some ids, by the places of these.
local function read_parked(numbers, ids)
  local _, _, parked = keys_beside(numbers)
  if redis.call('EXISTS', parked) == 0 then return {} end
  return redis.call('HMGET', parked, unpack(ids))
end

-- The time in ms for which positions are kept; `age` of the history in ms.
local function lifetime(age)
  return math.max(age, MINUTE * 1000)
end

-- Writes ids and entries; `age` of the history in ms.
local function write(numbers, age, fields)
  if #fields == 0 then return end
  local positions, former = keys_beside(numbers)
  local now, kept = math.floor(now_us() / 1000), lifetime(age)
  local begun = tonumber(redis.call('HGET', positions, NEWEST) or '')
  if begun and (now - begun > kept or now < begun) then
    redis.call('RENAME', positions, former)
    begun = nil
  end
  if not begun then redis.call('HSET', positions, NEWEST, now) end
  redis.call('HSET', positions, unpack(fields))
  redis.call('PEXPIRE', positions, 2 * kept)
end

-- The age of the history in ms; nil if none is recorded.
local function age_of(numbers)
  local age = string.match(redis.call('HGET', numbers, 'history') or '', '^%d+ (%d+) %d+ %d+$')
  age = tonumber(age or '')
  if age and age <= DAY * 1000 then return age end
end

-- Whether the start of a claim, which was replaced, is heard: nobody waits for a node that was killed.
local function is_heard(numbers, claim)
  local sharded = PUBLISH == 'SPUBLISH'
  local stem = sharded and string.sub(numbers, 1, -8) or string.match(numbers, '^[^{]*') .. '{~}:'
  local channel = stem .. 'start:' .. string.match(claim, '^[^.]*')
  local counts = redis.pcall('PUBSUB', sharded and 'SHARDNUMSUB' or 'NUMSUB', channel)
  return counts.err or counts[2] > 0
end

-- Notes the claims at the places `won`. An id that comes back keeps its position, unless it was that of another
-- reader; any other one begins at the last message, which has the place `epoch`, `last`. Returns by the places
-- "epoch last"; behind it the "epoch number" that was stored; and behind that the claim that was `replaced`,
-- if its owner may know a later one that counts.
local function claim(numbers, claims, won, replaced, epoch, last)
  local ids, readers, own = column(claims, 1), column(claims, 5), {}
  local fields, resumptions, now_here = {}, {}, epoch .. ' ' .. digits(last)
  for at, i in ipairs(won) do own[at] = ids[i] end
  local parked = read_parked(numbers, own)
  if #parked > 0 then
    local _, _, key = keys_beside(numbers)
    redis.call('HDEL', key, unpack(own))
  end
  for at, entry in ipairs(read(numbers, own)) do
    local i, here = won[at], now_here
    local stored_epoch, stored, reader = parse_entry(entry)
    resumptions[i] = now_here
    if stored_epoch and (reader == readers[i] or #reader == 1 and #readers[i] == 1) then
      local there = stored_epoch .. ' ' .. digits(stored)
      resumptions[i] = now_here .. ' ' .. there
      if replaced[i] and not parked[at] and is_heard(numbers, replaced[i]) then
        resumptions[i] = resumptions[i] .. ' ' .. replaced[i]
      end
      here = there
    end
    fields[#fields + 1] = ids[i]
    fields[#fields + 1] = here .. ' ' .. readers[i]
  end
  write(numbers, age_of(numbers) or 0, fields)
  return resumptions
end

-- Stores positions: ids and entries. Also where no history is recorded: Redis may have lost that, and the
-- next claim is to learn that something is lost.
local function store(numbers, fields)
  local ids = {}
  for at = 1, #fields, 2 do ids[#ids + 1] = fields[at] end
  for i, place in pairs(read_parked(numbers, ids)) do
    local epoch, number, reader = parse_entry(fields[2 * i])
    local there, first = string.match(place or '', '^(%d+) (%d+)$')
    if reader and there and (epoch ~= there or number > tonumber(first)) then
      fields[2 * i] = place .. ' ' .. reader
    end
  end
  write(numbers, age_of(numbers) or 0, fields)
end

-- Notes that messages were parked: ids, and the place before each message, in order.
local function park(numbers, fields)
  local _, _, key = keys_beside(numbers)
  for at = 1, #fields, 2 do redis.call('HSETNX', key, fields[at], fields[at + 1]) end
  redis.call('PEXPIRE', key, 2 * lifetime(age_of(numbers) or 0))
end

return {claim = claim, store = store, read = read, parse = parse_entry, park = park}
