-- Counters that begin anew, and the histories of namespaces, where more is needed than recording.lua does.
-- Most calls need none of this: make_history makes these functions where one of them is needed, which costs
-- as much as two commands.
--
-- A history is recorded as long as the hash of numbers beside the namespace's channel has a setting. The
-- fields there:
--   history   the setting: messages, age in ms, bytes, and the time in ms until which it stands
--   ends      the times in ms until which the former three stand
--   epoch     beside the epoch: position of the last message, sum of bytes, and the position, time and sum
--             at which a mark is due; anything else beside it says that the positions must begin anew. So
--             a publication without a history, which finds the epoch alone, costs nothing more
--   marks     a line of position, time and sum for each mark, the newest first: where to cut the stream
-- Positions count messages, and begin together with an epoch of the numbers, so that none names two
-- messages. The stream has an entry for each envelope, with the position of its last message in its id
-- "position-0"; t is its time in ms, e the envelope, or, of what is targeted at members, i: an envelope with an
-- item {id, reader, item} for each, which is never published like this.

local function stream_beside(numbers)
  return string.sub(numbers, 1, -8) .. 'history'
end

-- Deletes a stream whose positions end. While the slot of a cluster is half-way to another server, it may be
-- there: no send fails for that, since readers leave out what is of another epoch, and the next entry that
-- is refused for it deletes it then.
local function drop(stream)
  server.pcall('DEL', stream)
end

-- The epoch that begins now, and is later than `former`, if there is one. Where one server may follow
-- another, `counted_by` are the digits with which each epoch of this one ends.
local function new_epoch(former, counted_by)
  local time = now_us()
  local epoch = string.sub(digits(time), 1, -1 - #counted_by) .. counted_by
  if former and tonumber(epoch) <= tonumber(former) then
    time = tonumber(former) + 10 ^ #counted_by
    epoch = string.sub(digits(time), 1, -1 - #counted_by) .. counted_by
  end
  return epoch
end

-- Whether a number of a setting is one that History allows.
local function is_from(least, number, most)
  return number >= least and number <= most
end

-- A setting; nil if there is none. `ends` is its last number, an end or a duration.
local function setting_in(text)
  local messages, age, bytes, ends = string.match(text or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if not messages then return end
  messages, age, bytes, ends = tonumber(messages), tonumber(age), tonumber(bytes), tonumber(ends)
  if is_from(1, messages, LARGEST_HISTORY) and is_from(1000, age, DAY * 1000)
    and is_from(1, bytes, LARGEST_HISTORY) and is_from(0, ends, LATEST) then
    return {messages = messages, age = age, bytes = bytes, ends = ends}
  end
end

-- The epoch of the numbers, whatever is beside it; false if there is none.
local function epoch_in(found)
  return counted(found and string.match(found, '^%d*'))
end

-- The setting that stands; nil if there is none, or none any more: then the history is removed.
local function setting_of(numbers)
  local setting = setting_in(redis.call('HGET', numbers, 'history'))
  if setting and now_us() <= setting.ends * 1000 then return setting end
  local epoch = epoch_in(server.call('HGET', numbers, 'epoch'))
  if epoch then server.call('HSET', numbers, 'epoch', epoch) end
  server.call('HDEL', numbers, 'history', 'ends', 'marks')
  drop(stream_beside(numbers))
end

-- Seconds for which the numbers of a namespace without members are kept: a minute more than its history.
local function lifetime(numbers)
  local setting = setting_of(numbers)
  return MINUTE + (setting and math.ceil(setting.age * (1 + 1 / MARKS) / 1000) or 0)
end

-- Begins an epoch, and with it the positions of a history, if one is to be recorded. Returns the epoch, and
-- the place before the first message.
local function begin(numbers, former, counted_by, last)
  local epoch = new_epoch(former, counted_by)
  local recorded = redis.call('HEXISTS', numbers, 'history') == 1 and setting_of(numbers)
  if not recorded then
    server.call('HSET', numbers, 'epoch', epoch, 'last', last)
    return epoch
  end
  drop(stream_beside(numbers))
  server.call('HDEL', numbers, 'marks')
  server.call('HSET', numbers, 'epoch', epoch .. ' 0 0 0 0 0', 'last', last)
  return place_in(epoch .. ' 0 0 0 0 0')
end

-- Counts `count` messages in a new epoch: there is none in what was found, or `number` is from a value that
-- we never write, or another server has counted before, which this one may not have to its end, or the
-- positions must begin anew. In the latter two cases the former epoch and number are kept. Returns epoch,
-- number and place.
local function count_anew(numbers, count, counted_by, found, number)
  local former = number >= tonumber(count) and number <= LATEST and epoch_in(found)
  if former then
    server.call('HSET', numbers, 'former', former .. ' ' .. digits(number - count))
  end
  local epoch, place = begin(numbers, former, counted_by, count)
  return epoch, count, place
end

-- Has the history of a namespace recorded from now on, for as long as the setting `asked` says in its last
-- number. Of two settings that stand, the larger one of each number counts, which lapses by itself when
-- nobody renews it: another number of it may be the smaller one. Returns the numbers that count.
local function renew(numbers, asked, counted_by)
  local found = redis.call('HMGET', numbers, 'history', 'epoch', 'last', 'ends')
  local wanted, standing, now = setting_in(asked), setting_in(found[1]), math.floor(now_us() / 1000)
  local ends, latest = {string.match(found[4] or '', '^(%d+) (%d+) (%d+)$')}, 0
  for at, name in ipairs({'messages', 'age', 'bytes'}) do
    local stands = standing and math.min(tonumber(ends[at] or standing.ends), standing.ends) or 0
    if stands > now + MINUTE * 1000 and standing[name] > wanted[name] then
      wanted[name] = standing[name]
    else
      stands = now + wanted.ends
    end
    ends[at], latest = digits(stands), math.max(latest, stands)
  end
  local bounds = digits(wanted.messages) .. ' ' .. digits(wanted.age) .. ' ' .. digits(wanted.bytes)
  redis.call('HSET', numbers, 'history', bounds .. ' ' .. digits(latest), 'ends', table.concat(ends, ' '))
  redis.call('EXPIRE', numbers, DAY)
  if not place_in(found[2]) then
    local epoch = epoch_in(found[2])
    if epoch then redis.call('HSET', numbers, 'former', epoch .. ' ' .. (counted(found[3]) or '0')) end
    begin(numbers, epoch, counted_by, 0)
  end
  return bounds
end

-- Makes a mark at the last of `count` messages. Returns the position up to which all is older than the
-- setting allows, exactly for messages, and but for a sixteenth for age and bytes; and when the next mark
-- is due.
local function mark(numbers, setting, count, position, sum)
  local now = math.floor(now_us() / 1000)
  local floor, newer = position - setting.messages, position - count
  local lines = {position .. ' ' .. now .. ' ' .. sum}
  for line, at, time, sum_there in
    string.gmatch(redis.call('HGET', numbers, 'marks') or '', '((%d+) (%d+) (%d+))') do
    at = tonumber(at)
    if at <= floor or #lines >= 4 * MARKS then break end
    if sum - tonumber(sum_there) > setting.bytes then
      floor = math.max(floor, newer)
      break
    elseif tonumber(time) < now - setting.age then
      floor = at
      break
    end
    lines[#lines + 1], newer = line, at
  end
  redis.call('HSET', numbers, 'marks', table.concat(lines, '\n'))
  return math.max(floor, 0), math.ceil(position + setting.messages / MARKS) .. ' '
    .. math.min(math.ceil(now + setting.age / MARKS), setting.ends) .. ' '
    .. math.ceil(sum + setting.bytes / MARKS)
end

-- Appends an envelope with a mark, cuts what is too old, and renews the time to live of the stream.
local function append_with_mark(numbers, stream, epoch, count, field, payload, position, sum)
  local setting = setting_of(numbers)
  if not setting then return end
  local floor, due = mark(numbers, setting, count, position, sum)
  redis.call('XADD', stream, 'MINID', '=', floor + 1, position .. '-0', 't', math.floor(now_us() / 1000),
    field, payload)
  redis.call('EXPIRE', numbers, DAY)
  redis.call('PEXPIRE', stream, 1000 + setting.age + math.ceil(setting.age / MARKS))
  redis.call('HSET', numbers, 'epoch', epoch .. ' ' .. position .. ' ' .. sum .. ' ' .. due)
  return true
end

-- The same for an envelope of `count` messages, the last of which has this place. If Redis refuses it, the
-- positions begin anew with the next message, so that none names one that is not there. Whether it is there.
local function append(numbers, epoch, count, field, payload, place)
  local stream, position, sum = stream_beside(numbers), place[1], place[2] + #payload + ENTRY_BYTES
  local done, why = pcall(append_with_mark, numbers, stream, epoch, count, field, payload, position, sum)
  if done then return why end
  note_mended(stream .. ' could not be written: ' .. (type(why) == 'table' and why.err or tostring(why)))
  drop(stream)
  server.call('HSET', numbers, 'epoch', epoch .. ' ')
end

return {
  count_anew = count_anew, setting_of = setting_of, lifetime = lifetime, renew = renew, append = append
}
