-- Publishes numbered envelopes, in order.
-- ARGV  not_after (µs), sender ("start generation"), then per envelope: channel, items
-- Reply {"LATE"}, or {"OK", number, heard, number, heard, …}

if late(ARGV[1]) then return {'LATE'} end
local reply = {'OK'}
for at = 3, #ARGV, 2 do
  local number, heard = publish(ARGV[at], ARGV[2], ARGV[at + 1])
  reply[#reply + 1] = number
  reply[#reply + 1] = heard
end
return reply
