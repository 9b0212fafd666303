-- Records the publications in namespaces with a history. All that is rare is in history.lua, which also says
-- what is recorded where. make_recording gives place_in and append.

-- Appends an envelope under a field, see history.lua; its last message has this place. Returns false, having done nothing, where a
-- mark is due, or Redis refuses it. Nothing is read for it.
local function append(numbers, epoch, field, payload, place)
  local position, sum, due, mark_at, mark_time, mark_sum = unpack(place)
  sum = sum + #payload + ENTRY_BYTES
  local now = math.floor(now_us() / 1000)
  if position >= mark_at or now >= mark_time or sum >= mark_sum then return false end
  local stream = string.sub(numbers, 1, -8) .. 'history'
  local added = redis.pcall('XADD', stream, 'NOMKSTREAM', position .. '-0', 't', now, field, payload)
  if not added or added.err then return false end
  server.call('HSET', numbers, 'epoch', epoch .. ' ' .. position .. ' ' .. sum .. ' ' .. due)
  return true
end

return place_in, append
