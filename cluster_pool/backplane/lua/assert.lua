-- Registers claims that a node holds already under its present incarnation, with their own tokens.
-- KEYS  per namespace: members, owners
-- ARGV  not_after (µs), sender, incarnation, start of the node, node id, then per namespace: its
--       channel, channel of its events, how many claims, and for each of them: id, time, nonce
-- Reply {"LATE"}, or {"OK", codes, error}: one digit per claim in order, 1 kept, 0 lost to a claim
--       with a greater token, 2 when Redis refused what its namespace needs; and why it did
-- Given several namespaces it touches several hash tags: it is then for one Redis only. An error of
-- one namespace is no end of the others.

if late(ARGV[1]) then return {'LATE'} end
local incarnation, start, node = ARGV[3], ARGV[4] .. '.', ARGV[5]
local codes = {}

local function assert_in(members, owners, channel, event_channel, count, at)
  local ids = {}
  for i = 1, count do ids[i] = ARGV[at + 3 * i - 2] end
  local claims = redis.call('HMGET', members, unpack(ids))
  local found = {}
  local fields = {}
  local changes = {}
  local taken = {''}
  local events = {}
  for i, id in ipairs(ids) do
    local time, nonce = ARGV[at + 3 * i - 1], ARGV[at + 3 * i]
    local claim = incarnation .. ':' .. time .. ':' .. nonce
    local standing = claims[i]
    local kept = true
    local holder, holder_time, holder_nonce
    if standing and standing ~= claim then
      holder, holder_time, holder_nonce = parse(standing)
      standing = holder and standing
    end
    if holder then
      local own = string.sub(holder, 1, #start) == start
      local newer = tonumber(holder_time) > tonumber(time)
      local same = tonumber(holder_time) == tonumber(time)
      if newer or (same and not own and holder_nonce > nonce) then
        kept = false
      else
        tally(changes, holder, -1, holder_time)
        if not (own and holder_nonce == nonce) then
          taken[#taken + 1] = '\147\7' .. packed(id) .. packed(standing)
        end
      end
    end
    if kept and standing ~= claim then
      tally(changes, incarnation, 1, time)
      fields[#fields + 1] = id
      fields[#fields + 1] = claim
      events[#events + 1] = event('join', id, node) -- who read meanwhile saw no living owner
    end
    found[i] = kept and '1' or '0'
  end
  if #fields > 0 then
    redis.call('HSET', members, unpack(fields))
    settle(owners, changes)
  end
  publish_events(owners, event_channel, events)
  if #taken > 1 then publish(channel, ARGV[2], 0, taken) end
  return table.concat(found)
end

local refusal = ''
local at = 6
for key = 1, #KEYS, 2 do
  local count = tonumber(ARGV[at + 2])
  local done, found = pcall(
    assert_in, KEYS[key], KEYS[key + 1], ARGV[at], ARGV[at + 1], count, at + 2
  )
  if not done then
    refusal = type(found) == 'table' and found.err or tostring(found)
    found = string.rep('2', count)
  end
  codes[#codes + 1] = found
  at = at + 3 + 3 * count
end
return {'OK', table.concat(codes), refusal}
