-- Executes runs in order: targeted items go to the starts of nodes that own their ids, in one envelope
-- for each incarnation; broadcasts between them go to the channel of their namespace. lease_view.py
-- explains the view.
-- Reply {codes, mark, error, unknown, heard, unheard}: a code per item in order (ABSENT; GONE_ITEM, which
--       is absent as well, when its owner is gone; UNREACHABLE when nobody listens, or the lease of its owner is
--       over; PARKED in place of these for an id that has been there lately, when a history has kept it;
--       ROUTED; REFUSED by Redis; LATE_ITEM after its not_after; UNKNOWN when the lease of its owner may be over; HELD_ITEM
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
local ended = ARGV[5] -- a line for each incarnation whose lease may be over: its name, a space, and "?"; "!" if
-- it is over, and nothing if it is gone; "" if there is none
local view_ends = tonumber(ARGV[6]) -- ms, from which on every lease may be over
local doubted = ARGV[7] -- CLAIMS and LEASES, as far as Redis may have lost some a moment ago
local envelope_count = tonumber(ARGV[8])
local targets = list(KEYS, 1, 2, #KEYS / 2 - envelope_count) -- members, numbers
local spaces = list(KEYS, targets.last + 1, 2) -- numbers, members
local envelopes = list(ARGV, 9, 5, envelope_count) -- after, channel, not_after, messages, items
local runs = list(ARGV, envelopes.last + 1, 3, targets.size) -- not_after, kept, size
local items = list(ARGV, runs.last + 1, 2) -- id, item
-- a target for each run; a space for each envelope, which comes after `after` runs; not_after in µs;
-- kept: 1 if the items are messages, which a history keeps

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
local parcels = {} -- by incarnation: false when it is gone, ENDED when its lease is over, STRANGER when it may be,
-- AWAY when its counter has moved: for the latter two nothing is kept, since their items come again
local STRANGER = {}
local ENDED = {}
local keepings = {} -- what histories have, by run
local AWAY = {}
local order = {}
local unheard = {}
local openings = {} -- by the size of a claim: the msgpack bytes before it
local openings_of_three = {} -- the same, by the size of a claim or an id, where two more follow
local openings_of_four = {} -- the same of an id, where three more follow: what is parked

local function parcel_for(incarnation)
  if stale then return STRANGER end
  if ended ~= '' then
    local _, stop = find(ended, '\n' .. incarnation .. ' ', 1, true)
    local state = stop and string.sub(ended, stop + 1, stop + 1)
    if stop then return state == '?' and STRANGER or state == '!' and ENDED end
  end
  local start = match(incarnation, '^[^.]*')
  if PUBLISH == 'SPUBLISH' then
    local found = redis.pcall('EXISTS', start_prefix .. start .. ':numbers')
    if type(found) == 'table' and found.err and find(found.err, 'non local key', 1, true) then
      refusal, halted = found.err, true
      return AWAY
    end
  end
  local parcel = {incarnation = incarnation, start = start, count = 0, parts = {''}, last = 1, positions = {}}
  order[#order + 1] = parcel
  return parcel
end

-- Whether an id, by its place, has been there in this epoch: from a former one it comes back to nothing.
local function resumes(keeping, i)
  return keeping.parse(keeping.entries[i]) == keeping.epoch
end

-- Whether a history has an item, and its id comes back to it.
local function is_kept(position)
  for _, keeping in ipairs(keepings) do
    local i = keeping.owned[position]
    if i then return resumes(keeping, i) end
  end
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
    for _, position in ipairs(parcel.positions) do
      codes[position] = code == UNREACHABLE and is_kept(position) and PARKED or code
    end
    if mark and parcel.start == own_start then own = mark end
  end
  parcels, order = {}, {}
end

local absent = find(doubted, CLAIMS, 1, true) and HELD_ITEM or ABSENT
local gone = find(doubted, LEASES, 1, true) and HELD_ITEM or GONE_ITEM

-- How a namespace with a history keeps what is targeted at some members of it; nil if it has none.
local function keeping_of(numbers, ids)
  local found = redis.pcall('HGET', numbers, 'epoch')
  if type(found) ~= 'string' or not find(found, ' ', 1, true) then return end
  local epoch, place = place_in(found)
  if not epoch or counted_by ~= '' and string.sub(epoch, -4) ~= counted_by then
    local last = tonumber(counted(redis.call('HGET', numbers, 'last')) or '0')
    epoch, last, place = make_history(redis, server, mended).count_anew(numbers, 0, counted_by, found, last)
    if not place then return end
  end
  local positions, readers, packed_readers = make_positions(redis, server, mended), {}, {['-'] = false}
  local entries = positions.read(numbers, ids)
  for i, entry in ipairs(entries) do
    local reader = entry and match(entry, '^%d+ %d+ ([%w_*-]+)$')
    if reader and packed_readers[reader] == nil then packed_readers[reader] = packed(reader) end
    readers[i] = reader and packed_readers[reader]
  end
  return {
    numbers = numbers, epoch = epoch, place = place, readers = readers, entries = entries,
    parse = positions.parse, items = {''}, count = 0, openings = {}, owned = {}, parked = {}, marks = {}
  }
end

-- The beginning of an array of three, or of another size, and the header of a string of `size` bytes.
local function opening_of(size, openings, array)
  openings = openings or openings_of_three
  local opening = openings[size]
  if not opening then
    opening = (array or '\147') .. str_header(size)
    openings[size] = opening
  end
  return opening
end

-- Keeps an item for an id and its reader, which is packed. Lua copies and hashes each string that it makes.
local function keep(keeping, id, reader, item)
  local at, items = 4 * keeping.count, keeping.items
  items[at + 2] = opening_of(#id)
  items[at + 3] = id
  items[at + 4] = reader
  items[at + 5] = item
  keeping.count = keeping.count + 1
end

-- Marks the item that was kept last, under an id of `size` bytes, as one that was published to nobody: its
-- array has a fourth element, true.
local function mark_parked(keeping, size)
  local at, items = 4 * keeping.count, keeping.items
  items[at - 2] = opening_of(size, openings_of_four, '\148')
  items[at + 1] = items[at + 1] .. '\195'
end

-- The beginning of a packed place, before a number of so many digits.
local function before_place(keeping, size)
  local opening = keeping.openings[size]
  if not opening then
    opening = str_header(#keeping.epoch + 1 + size) .. keeping.epoch .. ' '
    keeping.openings[size] = opening
  end
  return opening
end

-- Appends what was kept to the history; what has no owner is parked there.
local function append(keeping)
  local count, place, epoch = keeping.count, keeping.place, keeping.epoch
  if count == 0 then return end
  place[1] = place[1] + count
  local last = digits(place[1])
  local head = ENVELOPE .. epoch .. ' ' .. last .. ' ' .. count .. ' ' .. sender .. ' ' .. last .. '\n'
  keeping.items[1] = head
  local payload, _, record = table.concat(keeping.items), make_recording(redis, server, mended)
  if not record(keeping.numbers, epoch, 'i', payload, place) then
    local history = make_history(redis, server, mended)
    if not history.append(keeping.numbers, epoch, count, 'i', payload, place) then return end
  end
  keepings[#keepings + 1] = keeping
  if #keeping.parked == 0 then return end
  make_positions(redis, server, mended).park(keeping.numbers, keeping.marks)
  for _, position in ipairs(keeping.parked) do codes[position] = PARKED end
end
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
local NO_READERS = {}
for number, not_after, kept, size in each(runs) do
  if envelope then publish_after(number - 1) end
  local _, members, numbers = next_target()
  local run = part(items, first, first + size - 1)
  first = first + size
  local in_time = now <= tonumber(not_after)
  local claims = {}
  local code = in_time and ((halted or held[members]) and HELD_ITEM or ABSENT) or LATE_ITEM
  local keeping
  if code == ABSENT then
    local ids = column(run, 1)
    claims = redis.pcall('HMGET', members, unpack(ids))
    keeping = kept == '1' and keeping_of(numbers, ids)
  end
  local readers = keeping and keeping.readers or NO_READERS
  local at = run.from
  for i = 1, run.size do
    position = position + 1
    codes[position] = code
    local claim, unowned = claims[i], false
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
      elseif parcel == AWAY then
        codes[position] = HELD_ITEM
      elseif parcel == ENDED then
        codes[position], unowned = UNREACHABLE, true
      elseif parcel then
        local size = #claim
        if not openings[size] then openings[size] = '\146' .. str_header(size) end
        local count, parts, last = parcel.count + 1, parcel.parts, parcel.last
        parts[last + 1] = openings[size]
        parts[last + 2] = claim
        parts[last + 3] = argv[at + 1]
        parcel.last = last + 3
        if readers[i] then
          keep(keeping, argv[at], readers[i], argv[at + 1])
          parts[last + 1] = opening_of(size)
          local place = digits(keeping.place[1] + keeping.count)
          parts[last + 4] = before_place(keeping, #place)
          parts[last + 5] = place
          parcel.last = last + 5
          keeping.owned[position] = i
        end
        parcel.positions[count] = position
        parcel.count = count
      elseif incarnation then
        codes[position], unowned = gone, true
      end
    elseif code == ABSENT and not claim then
      codes[position], unowned = absent, true
    end
    if codes[position] == HELD_ITEM then held[members] = true end
    if unowned and readers[i] and resumes(keeping, i) and codes[position] ~= HELD_ITEM then
      keeping.marks[#keeping.marks + 1] = argv[at]
      keeping.marks[#keeping.marks + 1] = keeping.epoch .. ' ' .. digits(keeping.place[1] + keeping.count)
      keep(keeping, argv[at], readers[i], argv[at + 1])
      mark_parked(keeping, #argv[at])
      keeping.parked[#keeping.parked + 1] = position
    end
    at = at + 2
  end
  if keeping then append(keeping) end
end
publish_after(runs.size)
flush()
return {table.concat(codes), own, refusal, unknown, heard_of, unheard}
