-- Shared by the scripts that publish envelopes.

-- The number of subscribers to the channel by its name. PUBLISH counts patterns too, and a monitor with
-- `PSUBSCRIBE *` is no node. If NUMSUB is not allowed, the reply of PUBLISH is used. SPUBLISH counts no
-- patterns.
local function named(channel, heard)
  if heard == 0 or PUBLISH == 'SPUBLISH' then return heard end
  local counts = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return counts.err and heard or counts[2]
end

-- Publishes one envelope of `count` messages, which are numbered; probes, replies and takeovers are no
-- messages, and make no counter. `parts` are the pieces of the items, behind a first place that is left
-- for the header: Lua copies and hashes each long string that is made, so only one is made. With
-- `members`, the counter of a channel without subscribers expires after a minute, or when its history has,
-- unless the namespace has members, whose node may be cut off; `numbers` in place of `members` says that it
-- has none. Any other counter expires after a day. `counted_by` are the last digits of epochs that this
-- server began. Returns the mark of the last message, "epoch number", and the number of subscribers,
-- without those to patterns.
local function publish(channel, numbers, sender, count, parts, members, counted_by)
  local epoch, number, place, read, append
  if tonumber(count) > 0 then
    number = redis.call('HINCRBY', numbers, 'last', count)
    local found = server.call('HGET', numbers, 'epoch') -- a hash by now
    epoch = counted(found)
    if not epoch and found then -- of a history, as it seems
      read, append = make_recording(redis, server, mended)
      epoch, place = read(found)
    end
    if not epoch or counted_by ~= '' and string.sub(epoch, -4) ~= counted_by
      or number < tonumber(count) or number > LATEST then
      local history = make_history(redis, server, mended)
      epoch, number, place = history.count_anew(numbers, count, counted_by, found, number)
    end
    number = digits(number)
    if place then place[1] = place[1] + count end
  else
    local counter = redis.call('HMGET', numbers, 'epoch', 'last')
    epoch, number = counted(counter[1]), counted(counter[2]) or '0'
    if not epoch then epoch = counted(string.match(counter[1] or '', '^%d+')) or '0' end
  end
  local mark = epoch .. ' ' .. number
  local ends = place and ' ' .. place[1] .. '\n' or '\n'
  parts[1] = ENVELOPE .. mark .. ' ' .. count .. ' ' .. sender .. ends
  local payload = table.concat(parts)
  local heard = named(channel, server.call(PUBLISH, channel, payload))
  if place then
    if not append then read, append = make_recording(redis, server, mended) end
    if not append(numbers, epoch, 'e', payload, place) then
      make_history(redis, server, mended).append(numbers, epoch, count, 'e', payload, place)
    end
  end
  local unwanted = members and heard == 0
    and (members == numbers or redis.call('EXISTS', members) == 0)
  if unwanted and place then
    server.call('EXPIRE', numbers, make_history(redis, server, mended).lifetime(numbers))
  else
    server.call('EXPIRE', numbers, unwanted and MINUTE or DAY)
  end
  return mark, heard
end

-- The same, but if Redis refuses, the script goes on: returns false and the error.
local function try_publish(...)
  local done, mark, heard = pcall(publish, ...)
  if done then return mark, heard end
  local refusal = type(mark) == 'table' and mark.err or tostring(mark)
  return false, denied('PUBLISH', refusal) or refusal
end

-- Has the numbers of a namespace without members expire, in a minute or with its history.
local function expire_numbers(numbers)
  local recorded = redis.call('HEXISTS', numbers, 'history') == 1
  local history = recorded and make_history(redis, server, mended)
  redis.call('EXPIRE', numbers, history and history.lifetime(numbers) or MINUTE)
end
