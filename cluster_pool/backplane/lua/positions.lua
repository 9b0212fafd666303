-- How far each id of a namespace with a history has received it. make_positions makes these functions.
--
-- A position is stored with the first claim of an id and again by its owner, and kept for as long as the
-- history when nobody stores it any more: the hash `positions` becomes `former_positions` after that time, with
-- all that is not stored again. An entry is epoch, number and reader; the reader, which a claim names, is who
-- may read what is targeted at the id: a word for one user, "*" for anybody, or "-" for nobody.

local NEWEST = '' -- beside the ids: the time in ms at which the hash was begun

local function keys_beside(numbers)
  local stem = string.sub(numbers, 1, -8)
  return stem .. 'positions', stem .. 'former_positions'
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

-- Writes ids and entries; `age` of the history in ms.
local function write(numbers, age, fields)
  if #fields == 0 then return end
  local positions, former = keys_beside(numbers)
  local now, kept = math.floor(now_us() / 1000), math.max(age, MINUTE * 1000)
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

-- Notes the claims at the places `won`. An id that comes back keeps its position, unless it was that of another
-- reader; any other one begins at the last message, which has the place `epoch`, `last`. Returns by the places "epoch last"; behind it the "epoch number" that was stored; and
-- behind that the claim that was `replaced`.
local function claim(numbers, claims, won, replaced, epoch, last)
  local ids, readers, own = column(claims, 1), column(claims, 5), {}
  local fields, resumptions, now_here = {}, {}, epoch .. ' ' .. digits(last)
  for at, i in ipairs(won) do own[at] = ids[i] end
  for at, entry in ipairs(read(numbers, own)) do
    local i, here = won[at], now_here
    local stored_epoch, stored, reader = parse_entry(entry)
    resumptions[i] = now_here
    if stored_epoch and (reader == readers[i] or #reader == 1 and #readers[i] == 1) then
      local there = stored_epoch .. ' ' .. digits(stored)
      resumptions[i] = now_here .. ' ' .. there .. (replaced[i] and ' ' .. replaced[i] or '')
      here = there
    end
    fields[#fields + 1] = ids[i]
    fields[#fields + 1] = here .. ' ' .. readers[i]
  end
  write(numbers, age_of(numbers) or 0, fields)
  return resumptions
end

-- Stores positions, each {id, "epoch number", reader}. Without a reader, one for whom nothing is stored gets
-- nothing.
local function store(numbers, positions)
  local age, ids, fields = age_of(numbers), {}, {}
  if not age then return end
  for i, one in ipairs(positions) do ids[i] = one[1] end
  for i, entry in ipairs(read(numbers, ids)) do
    local _, _, reader = parse_entry(entry)
    reader = positions[i][3] or reader
    if reader then
      fields[#fields + 1] = ids[i]
      fields[#fields + 1] = positions[i][2] .. ' ' .. reader
    end
  end
  write(numbers, age, fields)
end

return {claim = claim, store = store, read = read, parse = parse_entry}
