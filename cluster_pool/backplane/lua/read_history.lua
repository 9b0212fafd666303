-- Reads a page of a history: entries from an id on, or from it back.
-- Reply {epoch, position, number, bounds, now, entries, more}: the position of the last message, its epoch,
--       and the number of the last broadcast, "" for all if none is recorded; messages, age in ms and bytes
--       of its setting; the time in ms; for each entry its id and fields; 1 if there may be more entries,
--       else 0

local numbers = KEYS[1]
local history_key = KEYS[2]
local start = ARGV[1] -- an id, "(" and an id to begin behind it, "-" or "+"
local newest_first = tonumber(ARGV[2]) -- 1, or 0 for the oldest first
local most = tonumber(ARGV[3])
local most_bytes = tonumber(ARGV[4])

local epoch, place = place_in(redis.call('HGET', numbers, 'epoch'))
local setting = epoch and make_history(redis, server, mended).setting_of(numbers)
local now = math.floor(now_us() / 1000)
if not setting then return {'', '', '', '', now, {}, 0} end

-- An entry's bytes.
local function bytes_of(entry)
  local size = 0
  for _, value in ipairs(entry[2]) do size = size + #value end
  return size
end

-- Entries are read in few commands: in each as many as fit, by the largest so far.
local command, to = 'XRANGE', '+'
if newest_first == 1 then command, to = 'XREVRANGE', '-' end
local entries, size, largest, step, more = {}, 0, 1, 1, 1
while #entries < most and size < most_bytes do
  step = math.min(step, most - #entries)
  local page = redis.call(command, history_key, start, to, 'COUNT', step)
  for _, entry in ipairs(page) do
    entries[#entries + 1] = entry
    size, largest = size + bytes_of(entry), math.max(largest, bytes_of(entry))
  end
  if #page < step then
    more = 0
    break
  end
  start = '(' .. page[#page][1]
  step = math.max(1, math.min(4 * step, math.floor((most_bytes - size) / largest)))
end
local bounds = digits(setting.messages) .. ' ' .. digits(setting.age) .. ' ' .. digits(setting.bytes)
local number = counted(redis.call('HGET', numbers, 'last')) or '0'
return {epoch, digits(place[1]), number, bounds, now, entries, more}
