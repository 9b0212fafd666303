-- Routes targeted items to the nodes that own their ids; one envelope for each node.
-- KEYS  leases, incarnations
-- ARGV  not_after (µs), sender, prefix of node channels, own node id,
--       then per namespace: members key, count, and count times: id, item
-- Reply {"LATE"}, or {"OK", codes, number, error}: one digit per item in order (0 absent, 1 routed,
--       2 unreachable, 3 refused by Redis), the number of the last message to the own node, 0 when
--       there was none, and why Redis refused
-- The one script that touches keys of several hash tags: it is for one Redis only.

if late(ARGV[1]) then return {'LATE'} end
local now = now_us() / 1000
local codes = {}
local position = 0
local owners = {}
local parcels = {}
local order = {}
local refusal = ''
local openings = {} -- of a list of two, with a nonce of that many bytes before the item
for size = 0, 31 do openings[size] = string.char(146, 160 + size) end

local function owner(incarnation)
  local node = owners[incarnation]
  if node == nil then
    local ends = redis.call('ZSCORE', KEYS[1], incarnation)
    node = ends and tonumber(ends) > now and redis.call('HGET', KEYS[2], incarnation) or false
    owners[incarnation] = node
  end
  return node
end

local at = 5
while at <= #ARGV do
  local key = ARGV[at]
  local count = tonumber(ARGV[at + 1])
  local ids = {}
  for i = 1, count do ids[i] = ARGV[at + 2 * i] end
  local claims = redis.pcall('HMGET', key, unpack(ids))
  for i = 1, count do
    position = position + 1
    codes[position] = '0'
    if claims.err then
      codes[position] = '3'
      refusal = claims.err
    elseif claims[i] then
      local claim = claims[i]
      local colon = string.find(claim, ':', 1, true)
      local node = owner(string.sub(claim, 1, colon - 1))
      if node then
        local parcel = parcels[node]
        if not parcel then
          parcel = {count = 0, parts = {''}, positions = {}}
          parcels[node] = parcel
          order[#order + 1] = node
        end
        local nonce = string.sub(claim, string.find(claim, ':', colon + 1, true) + 1)
        local count, parts = parcel.count, parcel.parts
        parts[3 * count + 2] = openings[#nonce]
        parts[3 * count + 3] = nonce
        parts[3 * count + 4] = ARGV[at + 2 * i + 1]
        parcel.positions[count + 1] = position
        parcel.count = count + 1
      end
    end
  end
  at = at + 2 + 2 * count
end

local own = 0
for _, node in ipairs(order) do
  local parcel = parcels[node]
  local number, heard =
    try_publish(ARGV[3] .. node, ARGV[2], parcel.count, parcel.parts)
  local code = '3'
  if number then code = heard > 0 and '1' or '2' else refusal = heard end
  for _, position in ipairs(parcel.positions) do codes[position] = code end
  if number and node == ARGV[4] then own = number end
end
return {'OK', table.concat(codes), own, refusal}
