-- Publishes numbered envelopes, in order.
-- Reply {mark, heard, mark, heard, …}: the epoch and number of the last message, and how many heard
--       it; LATE and 0 for an envelope that came after its not_after, "" and the error for one that
--       Redis refused
-- With several namespaces it touches several hash tags, and works on one Redis only.

local spaces = list(KEYS, 1, 2) -- numbers, members
-- of each channel; the channel of a node has no members, and names its numbers twice
local sender = ARGV[1] -- "start generation"
local counted_by = ARGV[2] -- the last digits of epochs that this server began; "" for one Redis
local envelopes = list(ARGV, 3, 4) -- channel, not_after, messages, items
-- not_after in µs; messages: how many of the items are messages

local now = now_us()
local space = each(spaces)
local reply = {}
for _, channel, not_after, messages, items in each(envelopes) do
  local _, numbers, members = space()
  local mark, heard = LATE, 0
  if now <= tonumber(not_after) then
    mark, heard = try_publish(channel, numbers, sender, messages, {'', items}, members, counted_by)
  end
  reply[#reply + 1] = mark or ''
  reply[#reply + 1] = heard
end
return reply
