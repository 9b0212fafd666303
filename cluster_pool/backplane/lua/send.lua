-- Routes targeted items to the nodes that own their ids; one envelope for each node.
-- Reply {codes, mark, error}: a code per item in order (ABSENT, ROUTED, UNREACHABLE when nobody
--       listens, or the owner's lease is over and it is not buried yet, REFUSED by Redis, LATE_ITEM
--       after its not_after); epoch and number of the last message to the own node, "" when there
--       was none; and why Redis refused
-- Given several namespaces it touches several hash tags, and those of the nodes' channels always: it
-- is for one Redis only. The channels, and the counters beside them, are known by the claims alone.

local leases = KEYS[1]
local incarnations = KEYS[2]
local spaces = list(KEYS, 3, 1) -- members
local sender = ARGV[1] -- "start generation"
local node_prefix = ARGV[2] -- of the nodes' channels
local own_node = ARGV[3]
local runs = list(ARGV, 4, 2, spaces.size) -- not_after, size
local items = list(ARGV, runs.last + 1, 2) -- id, item
-- one run of each namespace; not_after in µs, and how many items

local argv, match = ARGV, string.match -- a global is looked up by its name, each time
local micros = now_us()
local now = micros / 1000
local codes = {}
local position = 0
local refusal = ''
local parcels = {} -- by incarnation: for its node, ENDED, or false when its node is not known
local ENDED = {} -- its lease is over: dead, or kept from its heartbeat, which the next will tell
local by_node = {}
local order = {}
local openings = {} -- of a list of two, with a claim of that many bytes before the item

local function parcel_for(incarnation)
  local ends = redis.call('ZSCORE', leases, incarnation)
  if ends and tonumber(ends) <= now then return ENDED end
  local node = ends and redis.call('HGET', incarnations, incarnation)
  if not node then return false end
  if not by_node[node] then
    by_node[node] = {node = node, count = 0, parts = {''}, positions = {}}
    order[#order + 1] = by_node[node]
  end
  return by_node[node]
end

local space = each(spaces)
local first = 1
for _, not_after, size in each(runs) do
  local _, members = space()
  local run = part(items, first, first + size - 1)
  first = first + size
  local in_time = micros <= tonumber(not_after)
  local claims = {}
  if in_time then claims = redis.pcall('HMGET', members, unpack(column(run, 1))) end
  local at = run.from
  for i = 1, run.size do
    position = position + 1
    codes[position] = in_time and ABSENT or LATE_ITEM
    local claim = claims[i]
    if claims.err then
      codes[position] = REFUSED
      refusal = claims.err
    elseif claim and #claim <= LONGEST_CLAIM then
      local incarnation = match(claim, '^[^:]*')
      local parcel = parcels[incarnation]
      if parcel == nil then
        parcel = parcel_for(incarnation)
        parcels[incarnation] = parcel
      end
      if parcel == ENDED then
        codes[position] = UNREACHABLE
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
      end
    end
    at = at + 2
  end
end

local own = ''
for _, parcel in ipairs(order) do
  local channel = node_prefix .. parcel.node
  local mark, heard = try_publish(
    channel, channel .. ':numbers', sender, parcel.count, parcel.parts
  )
  local code = REFUSED
  if mark then code = heard > 0 and ROUTED or UNREACHABLE else refusal = heard end
  for _, position in ipairs(parcel.positions) do codes[position] = code end
  if mark and parcel.node == own_node then own = mark end
end
return {table.concat(codes), own, refusal}
