-- Shared by the scripts that publish envelopes.

-- The number of subscribers to the channel by its name. PUBLISH counts patterns too, and a monitor with
-- `PSUBSCRIBE *` is no node. If NUMSUB is not allowed, the reply of PUBLISH is used. SPUBLISH counts no
-- patterns.
local function named(channel, heard)
  if heard == 0 or PUBLISH == 'SPUBLISH' then return heard end
  local counts = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return counts.err and heard or counts[2]
end

-- Counts `count` messages. The counter of another server, which this one may not have to its end, goes on
-- as a new one, and keeps the former epoch and number; so does one whose positions must begin anew. Returns
-- the epoch and number of the last message, and the history with its position there, if one is recorded.
local function count_messages(numbers, count, counted_by)
  local number = redis.call('HINCRBY', numbers, 'last', count)
  local found = server.call('HMGET', numbers, 'epoch', 'history', 'recorded') -- a hash by now
  local epoch = counted(found[1])
  local history = found[2] and history_in(numbers, found[2], found[3])
  local former
  if number < tonumber(count) or number > LATEST then epoch = false end -- from a value that we never write
  if epoch and (counted_by ~= '' and string.sub(epoch, -4) ~= counted_by
      or history and not history.position) then
    server.call('HSET', numbers, 'former', epoch .. ' ' .. digits(number - count))
    former, epoch = epoch, false
  end
  if not epoch then
    epoch, number = new_epoch(former, counted_by), count
    server.call('HSET', numbers, 'epoch', epoch, 'last', count)
    if history then begin_history(history) end
  end
  if history then history.position = history.position + count end
  return epoch, digits(number), history
end

-- Publishes one envelope of `count` messages, which are numbered; probes, replies and takeovers are no
-- messages, and make no counter. `parts` are the pieces of the items, behind a first place that is left
-- for the header: Lua copies and hashes each long string that is made, so only one is made. With
-- `members`, the counter of a channel without subscribers expires after a minute, or when its history has,
-- unless the namespace has members, whose node may be cut off; `numbers` in place of `members` says that it
-- has none. Any other counter expires after a day. Returns the mark of the last message, "epoch number",
-- and the number of subscribers, without those to patterns.
local function publish(channel, numbers, sender, count, parts, members, counted_by)
  local epoch, number, history
  if tonumber(count) > 0 then
    epoch, number, history = count_messages(numbers, count, counted_by)
  else
    local counter = redis.call('HMGET', numbers, 'epoch', 'last')
    epoch, number = counted(counter[1]) or '0', counted(counter[2]) or '0'
  end
  local mark = epoch .. ' ' .. number
  local place = history and ' ' .. digits(history.position) or ''
  parts[1] = ENVELOPE .. mark .. ' ' .. count .. ' ' .. sender .. place .. '\n'
  local payload = table.concat(parts)
  local heard = named(channel, server.call(PUBLISH, channel, payload))
  if history then record(history, count, payload) end
  local unwanted = members and heard == 0
    and (members == numbers or redis.call('EXISTS', members) == 0)
  server.call('EXPIRE', numbers, unwanted and lifetime(history) or DAY)
  return mark, heard
end

-- The same, but if Redis refuses, the script goes on: returns false and the error.
local function try_publish(...)
  local done, mark, heard = pcall(publish, ...)
  if done then return mark, heard end
  local refusal = type(mark) == 'table' and mark.err or tostring(mark)
  return false, denied('PUBLISH', refusal) or refusal
end
