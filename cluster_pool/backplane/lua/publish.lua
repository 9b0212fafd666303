-- Publishes numbered envelopes, in order.
-- ARGV  not_after (µs), sender ("start generation"), then per envelope: channel, how many of its
--       items are messages, items
-- Reply {"LATE"}, or {"OK", mark, heard, mark, heard, …}: the epoch and number of the last message,
--       and how many heard it; "" and the error for an envelope that Redis refused

if late(ARGV[1]) then return {'LATE'} end
local reply = {'OK'}
for at = 3, #ARGV, 3 do
  local channel, count = ARGV[at], ARGV[at + 1]
  local mark, heard = try_publish(channel, ARGV[2], count, {'', ARGV[at + 2]}, channel .. ':members')
  reply[#reply + 1] = mark or ''
  reply[#reply + 1] = heard
end
return reply
