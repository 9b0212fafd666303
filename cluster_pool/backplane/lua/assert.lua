-- Registers claims that a node holds already, under its present incarnation, with their own tokens.
-- Reply {LATE}, or {OK, codes, error}: per claim KEPT; MISSED, which is kept as well, when messages to the
--       id were parked, see positions.lua; LOST to a claim with a greater token; or REFUSED when Redis
--       refused a command for its namespace; and the error of that
-- With several namespaces it touches several hash tags, and works on one Redis only. An error in one
-- namespace does not stop the others.

local spaces = list(KEYS, 1, 4) -- members, owners, numbers, profiles
local not_after = ARGV[1] -- µs
local sender = ARGV[2]
local incarnation = ARGV[3]
local start = ARGV[4] -- of the node
local node = ARGV[5]
local counted_by = ARGV[6] -- the last digits of epochs that this server began; "" for one Redis
local told_count = tonumber(ARGV[7])
local told = list(ARGV, 8, 2, told_count) -- place, profile
local groups = list(ARGV, told.last + 1, 4, spaces.size) -- channel, events, history, size
local claims = list(ARGV, groups.last + 1, 3) -- id, time, nonce
-- place: of a claim among all that has a profile; history: the setting that this node asks for, or ""

if late(not_after) then return {LATE} end
local own_start = start .. '.'
local codes = {}
local profile_of = {} -- by the place of the claim
for _, place, profile in each(told) do profile_of[tonumber(place)] = profile end

-- Writes the profiles of claims that stand, and removes those of which there is none any more; adds an
-- update to `events` for each that had another and whose join is not there.
local function write_profiles(profiles, ids, entries, new_profiles, told_in_join, events)
  local before = redis.call('HMGET', profiles, unpack(ids))
  local fields = {}
  for i, id in ipairs(ids) do
    local profile = some(new_profiles[i])
    local entry = profile and entries[i] or false
    if profile then
      fields[#fields + 1], fields[#fields + 2] = id, entry
    elseif before[i] then
      redis.call('HDEL', profiles, id)
    end
    if before[i] ~= entry and not told_in_join[i] then
      events[#events + 1] = event('update', id, node, profile)
    end
  end
  if #fields > 0 then redis.call('HSET', profiles, unpack(fields)) end
end

local function assert_in(
  members, owners, numbers, profiles, channel, events_channel, history, asserted, from
)
  local ids = column(asserted, 1)
  local registered = redis.call('HMGET', members, unpack(ids))
  local parked_key = string.sub(numbers, 1, -8) .. 'parked_positions'
  local parked = redis.call('EXISTS', parked_key) == 1 and redis.call('HMGET', parked_key, unpack(ids)) or {}
  local found = {}
  local fields = {}
  local changes = {}
  local taken = {''}
  local events = {}
  local told_ids, entries, profiles_of_told, told_in_join = {}, {}, {}, {}
  local unclaimed = {}
  for i, id, time, nonce in each(asserted) do
    local claim = incarnation .. ':' .. time .. ':' .. nonce
    local standing = registered[i]
    local kept = true
    local holder, holder_time, holder_nonce
    if standing and standing ~= claim then
      holder, holder_time, holder_nonce = parse(standing)
      standing = holder and standing
    end
    if holder then
      local own = string.sub(holder, 1, #own_start) == own_start
      local newer = tonumber(holder_time) > tonumber(time)
      local same = tonumber(holder_time) == tonumber(time)
      if newer or (same and not own and holder_nonce > nonce) then
        kept = false
      else
        tally(changes, holder, -1, holder_time)
        if not (own and holder_nonce == nonce) then
          taken[#taken + 1] = TAKEN_ITEM .. packed(id) .. packed(standing)
          unclaimed[#unclaimed + 1] = id
        end
      end
    end
    local profile = profile_of[from + i]
    if kept and profile then
      told_ids[#told_ids + 1] = id
      entries[#told_ids] = profile_entry(time, nonce, profile)
      profiles_of_told[#told_ids] = profile
      told_in_join[#told_ids] = standing ~= claim
    end
    if kept and standing ~= claim then
      tally(changes, incarnation, 1, time)
      fields[#fields + 1] = id
      fields[#fields + 1] = claim
      -- a watcher may have seen no living owner meanwhile
      events[#events + 1] = event('join', id, node, some(profile))
    end
    found[i] = kept and (parked[i] and MISSED or KEPT) or LOST
  end
  if #fields > 0 then
    redis.call('HSET', members, unpack(fields))
    write_tallies(owners, changes)
    if history ~= '' then make_history(redis, server, mended).renew(numbers, history, counted_by) end
  end
  if #unclaimed > 0 then redis.call('HDEL', profiles, unpack(unclaimed)) end
  if #told_ids > 0 then
    write_profiles(profiles, told_ids, entries, profiles_of_told, told_in_join, events)
  end
  publish_events(owners, events_channel, events)
  if #taken > 1 then publish(channel, numbers, sender, 0, taken) end
  return table.concat(found)
end

local refusal = ''
local first = 1
local space = each(spaces)
for _, channel, events, history, size in each(groups) do
  local _, members, owners, numbers, profiles = space()
  local asserted = part(claims, first, first + size - 1)
  local done, found = pcall(
    assert_in, members, owners, numbers, profiles, channel, events, history, asserted, first - 1
  )
  first = first + size
  if not done then
    refusal = type(found) == 'table' and found.err or tostring(found)
    found = string.rep(REFUSED, size)
  end
  codes[#codes + 1] = found
end
return {OK, table.concat(codes), refusal}
