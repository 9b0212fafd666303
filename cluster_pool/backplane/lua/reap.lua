-- Removes a batch of the members that a dead incarnation left in one namespace.
-- Reply {cursor, removed, emptied}: "" as cursor when done; 1 when this removal emptied the namespace,
--       now or in an earlier call of the same name, whose reply may have been lost
-- HSCAN returns eight times as many as asked for while a table shrinks, and small hashes as a whole: the
-- rest is left, and the next call begins at the same cursor.

local members = KEYS[1]
local owners = KEYS[2]
local numbers = KEYS[3] -- of the namespace's channel
local emptied_key = KEYS[4]
local profiles = KEYS[5]
local incarnation = ARGV[1]
local node = ARGV[2] -- of the incarnation
local cursor = ARGV[3] -- "0" to begin
local most = tonumber(ARGV[4]) -- members to remove at most
local events_channel = ARGV[5]
local extent = ARGV[6] -- COUNTED: end when its count says that nothing is left; ALL: scan everything
local removal = ARGV[7] -- the reaper's name for this removal
local lives_on = ARGV[8] -- "1": its node has another incarnation, and may yet release a claim of this

local function finished()
  return extent == COUNTED and redis.call('HEXISTS', owners, incarnation) == 0
end

local emptied = redis.call('HEXISTS', emptied_key, removal)
if finished() then return {'', 0, emptied} end
local found = redis.call('HSCAN', members, cursor, 'COUNT', most)
local next_cursor = found[1] ~= '0' and found[1] or ''
local head = incarnation .. ':'
local gone, gone_claims = {}, {}
local changes = {}
local events = {}
for at = 1, #found[2], 2 do
  local id, claim = found[2][at], found[2][at + 1]
  if string.sub(claim, 1, #head) == head then
    if #gone == most then
      next_cursor = cursor
      break
    end
    local _, time = parse(claim)
    tally(changes, incarnation, -1, time or 0)
    gone[#gone + 1] = id
    gone_claims[#gone] = claim
  end
end
if #gone > 0 then
  redis.call('HDEL', members, unpack(gone))
  local profile_of = pop_profiles(profiles, gone, gone_claims)
  for i, id in ipairs(gone) do events[i] = event('leave', id, node, profile_of[i]) end
  write_tallies(owners, changes)
  local empty = redis.call('EXISTS', members) == 0
  publish_events(owners, events_channel, events, empty)
  if empty then
    emptied = 1
    remember(emptied_key, removal)
    if lives_on == '1' then remember(emptied_key, gone_claims[#gone]) end
    expire_numbers(numbers)
  end
end
if finished() then next_cursor = '' end
if next_cursor == '' then redis.call('HDEL', owners, incarnation, incarnation .. '#') end
if redis.call('EXISTS', members) == 0 then redis.call('DEL', owners, profiles) end
return {next_cursor, #gone, emptied}
