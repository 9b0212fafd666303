-- Shared by the scripts that publish, claim or read: the history of a namespace. It is recorded as long as
-- the hash of numbers beside the namespace's channel has a setting. The fields there:
--   history   the setting: messages, age in ms, bytes, and the time in ms until which it stands
--   recorded  position of the last message, sum of bytes, and the position, time and sum of the next mark
--   marks     a line of position, time and sum for each mark, the newest first: where to cut the stream
-- Positions count messages, and begin together with an epoch of the numbers, so that none names two
-- messages. The stream has an entry for each envelope, with the position of its last message in its id
-- "position-0"; t is its time in ms, e the envelope.

local function stream_beside(numbers)
  return string.sub(numbers, 1, -8) .. 'history'
end

-- A setting; nil if there is none. `ends` is its last number, an end or a duration.
local function setting_in(text)
  local messages, age, bytes, ends = string.match(text or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if messages and tonumber(age) <= DAY * 1000 then
    return {
      messages = tonumber(messages), age = tonumber(age), bytes = tonumber(bytes), ends = tonumber(ends)
    }
  end
end

-- The history that is recorded, by its fields; nil if there is none, or none any more. It has no position
-- if that must begin anew.
local function history_in(numbers, setting, recorded)
  local history = setting_in(setting)
  local now = math.floor(now_us() / 1000)
  if not history or history.ends < now then
    server.call('HDEL', numbers, 'history', 'recorded', 'marks')
    server.call('DEL', stream_beside(numbers))
    return
  end
  local position, sum, next_position, next_time, next_sum =
    string.match(recorded or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  history.numbers, history.now = numbers, now
  history.position = position and tonumber(position) <= LATEST and tonumber(position)
  history.sum = tonumber(sum)
  history.next_position, history.next_time = tonumber(next_position), tonumber(next_time)
  history.next_sum = tonumber(next_sum)
  return history
end

-- Begins the positions of a history, with a new epoch.
local function begin_history(history)
  server.call('DEL', stream_beside(history.numbers))
  server.call('HDEL', history.numbers, 'marks')
  server.call('HSET', history.numbers, 'recorded', '0 0 0 0 0')
  history.position, history.sum = 0, 0
  history.next_position, history.next_time, history.next_sum = 0, 0, 0
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

-- Seconds for which the numbers of a namespace without members are kept: nobody comes back later for what
-- the history has, if there is one.
local function lifetime(history)
  return MINUTE + (history and math.ceil(history.age * (1 + 1 / MARKS) / 1000) or 0)
end

local function expire_numbers(numbers)
  redis.call('EXPIRE', numbers, lifetime(setting_in(redis.call('HGET', numbers, 'history'))))
end

-- Has the history of a namespace recorded from now on, for as long as the setting `asked` says in its last
-- number. Of two settings that stand, the larger one of each number counts; the larger one lapses when
-- nobody renews it. Returns the numbers that count, without the last.
local function renew_history(numbers, asked, counted_by)
  local found = redis.call('HMGET', numbers, 'history', 'recorded', 'epoch', 'last')
  local wanted, standing, now = setting_in(asked), setting_in(found[1]), math.floor(now_us() / 1000)
  local ends = now + wanted.ends
  if standing and standing.ends > now + MINUTE * 1000 then
    for _, name in ipairs({'messages', 'age', 'bytes'}) do
      if standing[name] > wanted[name] then wanted[name], ends = standing[name], standing.ends end
    end
  end
  local bounds = digits(wanted.messages) .. ' ' .. digits(wanted.age) .. ' ' .. digits(wanted.bytes)
  redis.call('HSET', numbers, 'history', bounds .. ' ' .. digits(ends))
  redis.call('EXPIRE', numbers, DAY)
  local epoch, last = counted(found[3]), counted(found[4])
  local history = history_in(numbers, bounds .. ' ' .. digits(ends), found[2])
  if not epoch or not history.position then
    if epoch then redis.call('HSET', numbers, 'former', epoch .. ' ' .. (last or '0')) end
    redis.call('HSET', numbers, 'epoch', new_epoch(epoch, counted_by), 'last', 0)
    begin_history(history)
  end
  return bounds
end

-- Makes a mark at the last of `count` messages. Returns the position up to which all is older than the
-- setting allows; it is exact for messages, and by a sixteenth more at most is kept of age and bytes.
local function mark_history(history, count)
  local numbers, position, now, sum = history.numbers, history.position, history.now, history.sum
  local floor, newer = position - history.messages, position - count
  local lines = {digits(position) .. ' ' .. digits(now) .. ' ' .. digits(sum)}
  for line in string.gmatch(redis.call('HGET', numbers, 'marks') or '', '[^\n]+') do
    local at, time, sum_there = string.match(line, '^(%d+) (%d+) (%d+)$')
    at = tonumber(at or 0)
    if at <= floor or #lines >= 4 * MARKS then break end
    if sum - tonumber(sum_there) > history.bytes then
      floor = math.max(floor, newer)
      break
    elseif tonumber(time) < now - history.age then
      floor = at
      break
    end
    lines[#lines + 1], newer = line, at
  end
  redis.call('HSET', numbers, 'marks', table.concat(lines, '\n'))
  history.next_position = position + math.max(1, math.floor(history.messages / MARKS))
  history.next_time = now + math.max(1, math.floor(history.age / MARKS))
  history.next_sum = sum + math.max(1, math.floor(history.bytes / MARKS))
  return math.max(floor, 0)
end

-- Appends an envelope of `count` messages, the last of which has the history's position. It is cut only at
-- a mark: until then nothing is read.
local function append(history, count, payload)
  local numbers, stream = history.numbers, stream_beside(history.numbers)
  local id, time = digits(history.position) .. '-0', digits(history.now)
  history.sum = history.sum + #payload + ENTRY_BYTES
  local due = history.position >= history.next_position or history.now >= history.next_time
    or history.sum >= history.next_sum
  local added = not due and redis.pcall('XADD', stream, 'NOMKSTREAM', id, 't', time, 'e', payload)
  if not added or added.err then
    local floor = digits(mark_history(history, count) + 1)
    redis.call('XADD', stream, 'MINID', '=', floor, id, 't', time, 'e', payload)
    redis.call('PEXPIRE', stream, digits(1000 + history.age + math.ceil(history.age / MARKS)))
  end
  local next_mark = digits(history.next_position) .. ' ' .. digits(history.next_time) .. ' '
    .. digits(history.next_sum)
  redis.call('HSET', numbers, 'recorded', digits(history.position) .. ' ' .. digits(history.sum)
    .. ' ' .. next_mark)
end

-- The same. If Redis refuses, the positions begin anew with the next message: none names one that is not
-- there.
local function record(history, count, payload)
  local done, why = pcall(append, history, count, payload)
  if done then return end
  local stream = stream_beside(history.numbers)
  note_mended(stream .. ' could not be written: ' .. (type(why) == 'table' and why.err or tostring(why)))
  server.call('DEL', stream)
  server.call('HDEL', history.numbers, 'recorded', 'marks')
end
