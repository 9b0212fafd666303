-- Routes targeted items to the nodes that own their ids; one envelope for each node.
-- KEYS  leases, incarnations
-- ARGV  sender, prefix of node channels, own node id,
--       then per namespace: members key, not_after (µs), count, and count times: id, item
-- Reply {codes, mark, error}: one digit per item in order (0 absent, 1 routed, 2 unreachable: nobody
--       listens, or the owner's lease is over and it is not buried yet,
--       3 refused by Redis, 4 after its not_after), epoch and number of the last message to the own
--       node, "" when there was none, and why Redis refused
-- The one script that touches keys of several hash tags: it is for one Redis only.

local argv, match = ARGV, string.match -- a global is looked up by its name, each time
local micros = now_us()
local now = micros / 1000
local codes = {}
local position = 0
local refusal = ''
local parcels = {} -- by incarnation: for its node, ENDED, or false when nobody knows it
local ENDED = {} -- its lease is over: dead, or kept from its heartbeat, which the next will tell
local by_node = {}
local order = {}
local openings = {} -- of a list of two, with a claim of that many bytes before the item

local function parcel_for(incarnation)
  local ends = redis.call('ZSCORE', KEYS[1], incarnation)
  if ends and tonumber(ends) <= now then return ENDED end
  local node = ends and redis.call('HGET', KEYS[2], incarnation)
  if not node then return false end
  if not by_node[node] then
    by_node[node] = {node = node, count = 0, parts = {''}, positions = {}}
    order[#order + 1] = by_node[node]
  end
  return by_node[node]
end

local at = 4
while at <= #argv do
  local key = argv[at]
  local count = tonumber(argv[at + 2])
  local in_time = micros <= tonumber(argv[at + 1])
  local claims = {}
  if in_time then
    local ids = {}
    for i = 1, count do ids[i] = argv[at + 1 + 2 * i] end
    claims = redis.pcall('HMGET', key, unpack(ids))
  end
  for i = 1, count do
    position = position + 1
    codes[position] = in_time and '0' or '4'
    local claim = claims[i]
    if claims.err then
      codes[position] = '3'
      refusal = claims.err
    elseif claim and #claim < 256 then -- no claim is longer: that would be somebody's hand
      local incarnation = match(claim, '^[^:]*')
      local parcel = parcels[incarnation]
      if parcel == nil then
        parcel = parcel_for(incarnation)
        parcels[incarnation] = parcel
      end
      if parcel == ENDED then
        codes[position] = '2'
      elseif parcel then
        local size = #claim
        if not openings[size] then openings[size] = '\146' .. str_header(size) end
        local count, parts = parcel.count, parcel.parts
        parts[3 * count + 2] = openings[size]
        parts[3 * count + 3] = claim
        parts[3 * count + 4] = argv[at + 2 + 2 * i]
        count = count + 1
        parcel.positions[count] = position
        parcel.count = count
      end
    end
  end
  at = at + 3 + 2 * count
end

local own = ''
for _, parcel in ipairs(order) do
  local mark, heard = try_publish(ARGV[2] .. parcel.node, ARGV[1], parcel.count, parcel.parts)
  local code = '3'
  if mark then code = heard > 0 and '1' or '2' else refusal = heard end
  for _, position in ipairs(parcel.positions) do codes[position] = code end
  if mark and parcel.node == ARGV[3] then own = mark end
end
return {table.concat(codes), own, refusal}
