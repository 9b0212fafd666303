-- Publishes numbered envelopes, in order.
-- ARGV  sender ("start generation"), then per envelope: channel, not_after (µs), how many of its items
--       are messages, items
-- Reply {mark, heard, mark, heard, …}: the epoch and number of the last message, and how many heard
--       it; "LATE" and 0 for an envelope that came after its not_after, "" and the error for one that
--       Redis refused

local now = now_us()
local reply = {}
for at = 2, #ARGV, 4 do
  local channel, not_after, count = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local mark, heard = 'LATE', 0
  if now <= tonumber(not_after) then
    mark, heard = try_publish(channel, ARGV[1], count, {'', ARGV[at + 3]}, channel .. ':members')
  end
  reply[#reply + 1] = mark or ''
  reply[#reply + 1] = heard
end
return reply
