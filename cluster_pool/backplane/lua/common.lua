-- Shared by all scripts: lists of arguments, time, events, and the counts beside the members. Uses only what
-- Redis 7, Valkey 9 and fakeredis have in common: no struct, no cmsgpack, no bit. scripts.py puts the shared
-- constants (CLAIMED, DAY …) and the functions of this file and of envelopes.lua, as far as they are used,
-- in front of a script, which becomes the function main(); those of history.lua and recording.lua are there
-- too, but made only where they are needed.
--
-- A script begins with its keys and arguments, one local for each. Arguments of any number are a list of
-- entries; the comment behind it names the fields of an entry. A test compares all of this with the
-- function of the script's name in script_calls.py.

local unpack = unpack

-- A list of entries of `stride` fields each in KEYS or ARGV, from index `from` on: `size` entries, or all.
local function list(source, from, stride, size)
  local last = size and from - 1 + size * stride or #source
  return {source = source, from = from, stride = stride, last = last, size = (last - from + 1) / stride}
end

-- The entries `from` to `to` of a list, as a list.
local function part(whole, from, to)
  return list(whole.source, whole.from + (from - 1) * whole.stride, whole.stride, to - from + 1)
end

-- One field of every entry, as a table.
local function column(entries, field)
  local source, values, size = entries.source, {}, 0
  for at = entries.from + field - 1, entries.last, entries.stride do
    size = size + 1
    values[size] = source[at]
  end
  return values
end

-- Iterates over a list: the number of each entry, from 1 on, and its fields.
local function each(entries)
  local source, stride, last = entries.source, entries.stride, entries.last
  local number, at = 0, entries.from - stride
  return function()
    number, at = number + 1, at + stride
    if at <= last then return number, unpack(source, at, at + stride - 1) end
  end
end

-- Values in our keys that this library never writes; they are treated as absent. The caller logs them.
local mended = {}

local function note_mended(what)
  if #mended < 10 then mended[#mended + 1] = what end
end

-- The refusal of a command that the ACL denies, with its name, which a Redis before 7.2 leaves out; nil
-- for any other refusal.
local function denied(command, refusal)
  return string.find(refusal, 'run this command or subcommand', 1, true)
    and 'ERR ACL failure in script: no permissions to run the \'' .. command .. '\' command' or nil
end

-- The commands of a script go through here. A key of another type than the command's is left over from
-- manual edits: it is deleted, and the command is executed as if it had not been there. A counter that
-- is no number is deleted, too, with the epoch of the channel's numbers, which begin anew.
local server = redis
local redis = {pcall = server.pcall}

function redis.call(...)
  local reply = server.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  local command, key, field = ...
  local refusal = tostring(reply.err)
  if string.find(refusal, 'WRONGTYPE', 1, true) then
    server.call('DEL', key)
    note_mended(key .. ' had a wrong type: deleted')
  elseif command == 'HINCRBY' and (string.find(refusal, 'not an integer', 1, true)
      or string.find(refusal, 'overflow', 1, true)) then
    server.call('HDEL', key, field, 'epoch', EVENTS_EPOCH)
    note_mended(key .. ' counted with what is no number: deleted')
  elseif denied(command, refusal) then
    error(denied(command, refusal), 0)
  end
  return server.call(...) -- raises an error that is none of these
end

-- The time in µs.
local function now_us()
  local time = server.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function digits(number)
  return string.format('%.0f', number)
end

local function late(not_after)
  return now_us() > tonumber(not_after)
end

-- The header of a msgpack str of `size` bytes, at most 65535.
local function str_header(size)
  if size < 32 then return string.char(160 + size) end
  if size < 256 then return string.char(217, size) end
  return string.char(218, math.floor(size / 256), size % 256)
end

-- A msgpack str.
local function packed(text)
  return str_header(#text) .. text
end

-- The number of subscribers to the channel by its name. PUBLISH counts patterns too, and a monitor with
-- `PSUBSCRIBE *` is no node. If NUMSUB is not allowed, the reply of PUBLISH is used. SPUBLISH counts no
-- patterns.
local function named(channel, heard)
  if heard == 0 or PUBLISH == 'SPUBLISH' then return heard end
  local counts = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return counts.err and heard or counts[2]
end

-- The text if it can be an epoch or a number in a header; false for any other.
local function counted(text)
  return text and #text <= 16 and string.find(text, '^%d+$') and text
end

-- A claim's incarnation, time and nonce; nothing if it is no claim by the rules of core/claims.py.
local function parse(claim)
  if #claim <= LONGEST_CLAIM then
    local incarnation, time, nonce = string.match(claim, '^([%w_.-]+):(%d+):(%w+)$')
    if incarnation and (#time < 16 or #time == 16 and tonumber(time) <= LATEST) then
      return incarnation, time, nonce
    end
  end
  note_mended('a claim that is none: ' .. string.sub(claim, 1, 64))
end

-- Escapes text for a JSON string; ids have no control characters, so two escapes suffice.
local function escaped(text)
  if string.find(text, '["\\]') then return (string.gsub(text, '["\\]', '\\%0')) end
  return text
end

-- The beginning of a join, an update or a leave as JSON; publish_events adds its number and end. A
-- profile is a JSON object with at least one field, or nil.
local function event(kind, id, node, profile)
  return '{"event":"' .. kind .. '","id":"' .. escaped(id) .. '","node":"' .. escaped(node) .. '"'
    .. (profile and ',' .. string.sub(profile, 2, -2) or '')
end

-- An entry of the hash of profiles: the time and nonce of the claim, by which one that was left behind
-- is known, and the profile.
local function profile_entry(time, nonce, profile)
  return time .. ':' .. nonce .. ' ' .. profile
end

-- The profile of an entry of the hash of profiles, if it is that of the claim with this time and nonce.
local function profile_of_mark(entry, mark)
  local found, profile = string.match(entry or '', '^(%d+:%w+) ({.+})$')
  return found == mark and profile or nil
end

-- The user of a profile as a JSON string, '' for none. It is the first field.
local function user_of(profile)
  if not profile or string.sub(profile, 1, 9) ~= '{"user":"' then return '' end
  local at = 10
  while true do
    local found = string.find(profile, '["\\]', at)
    if not found then return '' end
    if string.sub(profile, found, found) == '"' then return string.sub(profile, 9, found) end
    at = found + 2
  end
end

-- The profile, or nil for NO_PROFILE, which says that there is none any more.
local function some(profile)
  if profile ~= NO_PROFILE then return profile end
end

-- Removes the profiles of some members from the hash; returns by their places those that belong to
-- the claims. A namespace without profiles, as most are, costs one command.
local function pop_profiles(profiles, ids, claims)
  local found = {}
  if redis.call('EXISTS', profiles) == 0 then return found end
  for i, entry in ipairs(redis.call('HMGET', profiles, unpack(ids))) do
    local mark, profile = string.match(entry or '', '^(%d+:%w+) ({.+})$')
    if mark and string.sub(claims[i], -1 - #mark) == ':' .. mark then found[i] = profile end
  end
  redis.call('HDEL', profiles, unpack(ids))
  return found
end

-- Keeps which release or removal emptied a namespace, until its node confirms that it knows, a day at
-- most: a retry after a lost reply gets the same answer. Only the newest REMEMBERED are kept.
local function remember(emptied, field)
  redis.call('HSET', emptied, field, digits(now_us()))
  redis.call('EXPIRE', emptied, DAY)
  if redis.call('HLEN', emptied) <= REMEMBERED then return end
  local oldest, since
  local fields = redis.call('HGETALL', emptied)
  for at = 1, #fields, 2 do
    local time = tonumber(fields[at + 1]) or 0
    if not since or time < since then oldest, since = fields[at], time end
  end
  redis.call('HDEL', emptied, oldest)
end

-- Numbers and publishes joins and leaves of one namespace, in payloads of about EVENTS_BYTES at most.
-- The counter is in its hash of owners and is deleted with it: the leave that empties the namespace
-- says so, and the next join is 1 of a new epoch.
local function publish_events(owners, channel, events, empty)
  if #events == 0 then return end
  local before = redis.call('HINCRBY', owners, EVENTS, #events) - #events
  local epoch = counted(redis.call('HGET', owners, EVENTS_EPOCH))
  if before < 0 or before > 900000000000000 then -- from a value that we never write
    before, epoch = 0, false
    redis.call('HSET', owners, EVENTS, #events)
  end
  if not epoch then
    epoch = digits(now_us())
    redis.call('HSET', owners, EVENTS_EPOCH, epoch)
  end
  local tail = ',"epoch":"' .. epoch .. '"'
  local first, size = 1, 0
  for i, event in ipairs(events) do
    local ends = empty and i == #events and ',"empty":true}' or '}'
    events[i] = event .. ',"n":' .. digits(before + i) .. tail .. ends
    size = size + #events[i]
    if size > EVENTS_BYTES or i == #events then
      redis.call(PUBLISH, channel, table.concat(events, '\n', first, i))
      first, size = i + 1, 0
    end
  end
end

-- Adds to `changes` that an incarnation gained (1) or lost (-1) a claim made at `time`.
local function tally(changes, incarnation, sign, time)
  local change = changes[incarnation]
  if not change then
    change = {0, 0}
    changes[incarnation] = change
  end
  change[1] = change[1] + sign
  change[2] = change[2] + sign * (tonumber(time) % CHECKSUM_MODULUS)
end

-- Writes the collected changes to the hash of counts and checksums.
local function write_tallies(owners, changes)
  for incarnation, change in pairs(changes) do
    local left = redis.call('HINCRBY', owners, incarnation, digits(change[1]))
    if left > 0 then
      redis.call('HINCRBY', owners, incarnation .. '#', digits(change[2]))
    else
      redis.call('HDEL', owners, incarnation, incarnation .. '#')
    end
  end
end

-- The epoch of this state of Redis; false when there is none, or none that a node can have written.
local function epoch_at(key)
  return counted(redis.call('GET', key))
end

-- The number of nodes that these incarnations belong to: a node that rejoins has two for a while.
local function nodes_of(incarnations)
  local seen, count = {}, 0
  for _, incarnation in ipairs(incarnations) do
    local start = string.match(incarnation, '^[^.]*')
    if not seen[start] then
      seen[start] = true
      count = count + 1
    end
  end
  return count
end

-- The leases: {the name of each incarnation and the end of its lease in ms, also of those that are over;
-- the incarnations that are being reaped; the time in ms}.
local function read_leases(leases, dead)
  local found = redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
  return {found, redis.call('HKEYS', dead), math.floor(now_us() / 1000)}
end

-- Writes how many connections per second an incarnation can accept, "" for none. During a drain it is
-- not lowered: most newcomers then come from the drain itself, and the budget would fall with them.
local function set_headroom(headrooms, incarnation, headroom, draining)
  local before = redis.call('HGET', headrooms, incarnation)
  if headroom == '' then
    redis.call('HDEL', headrooms, incarnation)
  elseif not (draining and (tonumber(before or '') or 0) > tonumber(headroom)) then
    redis.call('HSET', headrooms, incarnation, headroom)
  end
end

-- The epoch of a namespace with a history, and the place of the last message in it, as the field `epoch`
-- has them; nothing for anything else. Numbers up to it become text as they are.
local function place_in(found)
  local epoch, position, sum, due, at, time, sum_then =
    string.match(found or '', '^(%d+) (%d+) (%d+) ((%d+) (%d+) (%d+))$')
  if epoch and #epoch <= 16 and #position < 14 and #sum < 14 then
    position, sum, at = tonumber(position), tonumber(sum), tonumber(at)
    return epoch, {position, sum, due, at, tonumber(time), tonumber(sum_then)}
  end
end
