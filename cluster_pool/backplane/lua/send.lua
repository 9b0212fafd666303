-- Executes runs in order: targeted items go to the starts of nodes that own their ids, in one envelope
-- for each incarnation; broadcasts between them go to the channel of their namespace. lease_view.py
-- explains the view.
-- Reply {codes, mark, error, unknown, heard, unheard}: a code per item in order (ABSENT; GONE_ITEM, which
--       is absent as well, when its owner is gone; ROUTED; UNREACHABLE when nobody listens; REFUSED by
--       Redis; LATE_ITEM after its not_after; UNKNOWN when the lease of its owner may be over; HELD_ITEM
--       behind such a one, in place of ABSENT and GONE_ITEM when these are doubted, and when a key is not
--       here, and behind that); epoch and number of the last message to the own start, "" when there was
--       none; why Redis refused; the incarnation of each UNKNOWN item; for each envelope the reply of
--       publish.lua, or HELD and 0 behind an UNKNOWN item; and the incarnations to which nobody listened
-- It touches the hash tags of its namespaces and that of the starts' channels, and works on one Redis
-- only. Which starts' channels, and counters beside them, follows from the claims: they are not in KEYS.

local sender = ARGV[1] -- "start generation"
local counted_by = ARGV[2] -- the last digits of epochs that this server began; "" for one Redis
local start_prefix = ARGV[3] -- of the starts' channels
local own_start = ARGV[4]
local ended = ARGV[5] -- a line for each incarnation whose lease may be over: its name, a space, and "?", or
-- nothing if it is gone; "" if there is none
local view_ends = tonumber(ARGV[6]) -- ms, from which on every lease may be over
local doubted = ARGV[7] -- CLAIMS and LEASES, as far as Redis may have lost some a moment ago
local envelope_count = tonumber(ARGV[8])
local targets = list(KEYS, 1, 1, #KEYS - 2 * envelope_count) -- members
local spaces = list(KEYS, targets.last + 1, 2) -- numbers, members
local envelopes = list(ARGV, 9, 5, envelope_count) -- after, channel, not_after, messages, items
local runs = list(ARGV, envelopes.last + 1, 2, targets.size) -- not_after, size
local items = list(ARGV, runs.last + 1, 2) -- id, item
-- a target for each run; a space for each envelope, which comes after `after` runs; not_after in µs

local argv, match, find = ARGV, string.match, string.find -- locals are faster than globals
local now = now_us()
local stale = now >= view_ends * 1000
local codes = {}
local position = 0
local refusal = ''
local halted = false -- a counter has moved to another primary ahead of its slot
local own = ''
local unknown = {}
local held = {} -- the members of namespaces for which nothing more is executed
local parcels = {} -- by incarnation: false when it is gone, STRANGER when its lease may be over
local STRANGER = {}
local order = {}
local unheard = {}
local openings = {} -- by the size of a claim: the msgpack bytes before it, of the pair (claim, item)

local function parcel_for(incarnation)
  if stale then return STRANGER end
  if ended ~= '' then
    local _, stop = find(ended, '\n' .. incarnation .. ' ', 1, true)
    if stop then return string.sub(ended, stop + 1, stop + 1) == '?' and STRANGER end
  end
  local start = match(incarnation, '^[^.]*')
  local parcel = {incarnation = incarnation, start = start, count = 0, parts = {''}, positions = {}}
  order[#order + 1] = parcel
  return parcel
end

-- Publishes the items gathered for each incarnation.
local function flush()
  for _, parcel in ipairs(order) do
    local channel = start_prefix .. parcel.start
    local mark, heard = try_publish(
      channel, channel .. ':numbers', sender, parcel.count, parcel.parts, nil, counted_by
    )
    local code = REFUSED
    if mark then
      code = ROUTED
      if heard == 0 then
        code = UNREACHABLE
        unheard[#unheard + 1] = parcel.incarnation
      end
    else
      refusal = heard
      if find(heard, 'non local key', 1, true) then code, halted = HELD_ITEM, true end
    end
    for _, position in ipairs(parcel.positions) do codes[position] = code end
    if mark and parcel.start == own_start then own = mark end
  end
  parcels, order = {}, {}
end

local absent = find(doubted, CLAIMS, 1, true) and HELD_ITEM or ABSENT
local gone = find(doubted, LEASES, 1, true) and HELD_ITEM or GONE_ITEM
local heard_of = {}
local next_envelope, next_space = each(envelopes), each(spaces)
local envelope, after, channel, channel_not_after, messages, joined = next_envelope()

-- Publishes the envelopes that come after `count` runs or fewer.
local function publish_after(count)
  while envelope and tonumber(after) <= count do
    flush()
    local _, numbers, members = next_space()
    local mark, heard = LATE, 0
    if halted or held[members] then
      mark = HELD
    elseif now <= tonumber(channel_not_after) then
      mark, heard = try_publish(channel, numbers, sender, messages, {'', joined}, members, counted_by)
    end
    heard_of[#heard_of + 1] = mark or ''
    heard_of[#heard_of + 1] = heard
    envelope, after, channel, channel_not_after, messages, joined = next_envelope()
  end
end

local next_target = each(targets)
local first = 1
for number, not_after, size in each(runs) do
  if envelope then publish_after(number - 1) end
  local _, members = next_target()
  local run = part(items, first, first + size - 1)
  first = first + size
  local in_time = now <= tonumber(not_after)
  local claims = {}
  local code = in_time and ((halted or held[members]) and HELD_ITEM or ABSENT) or LATE_ITEM
  if code == ABSENT then claims = redis.pcall('HMGET', members, unpack(column(run, 1))) end
  local at = run.from
  for i = 1, run.size do
    position = position + 1
    codes[position] = code
    local claim = claims[i]
    if claims.err then
      codes[position] = REFUSED
      refusal = claims.err
    elseif claim and #claim <= LONGEST_CLAIM then
      local incarnation = match(claim, '^([%w_.-]+):')
      local parcel = false
      if incarnation then
        parcel = parcels[incarnation]
        if parcel == nil then
          parcel = parcel_for(incarnation)
          parcels[incarnation] = parcel
        end
      end
      if parcel == STRANGER then
        codes[position] = UNKNOWN
        unknown[#unknown + 1] = incarnation
        held[members] = true
      elseif parcel then
        local size = #claim
        if not openings[size] then openings[size] = '\146' .. str_header(size) end
        local count, parts = parcel.count, parcel.parts
        parts[3 * count + 2] = openings[size]
        parts[3 * count + 3] = claim
        parts[3 * count + 4] = argv[at + 1]
        count = count + 1
        parcel.positions[count] = position
        parcel.count = count
      elseif incarnation then
        codes[position] = gone
      end
    elseif code == ABSENT and not claim then
      codes[position] = absent
    end
    if codes[position] == HELD_ITEM then held[members] = true end
    at = at + 2
  end
end
publish_after(runs.size)
flush()
return {table.concat(codes), own, refusal, unknown, heard_of, unheard}
