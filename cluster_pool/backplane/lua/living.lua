-- Reads the ends of leases and the incarnations that are being reaped, and the states of those in `asked`.
-- Reply {leases, states}: for each in `asked` LIVES, OVER when its lease is over and it is not buried
--       yet, or GONE

local leases = KEYS[1]
local dead = KEYS[2]
local asked = list(ARGV, 1, 1) -- incarnation

local states = {}
for i, incarnation in each(asked) do
  local ends = redis.call('ZSCORE', leases, incarnation)
  states[i] = GONE
  if ends and tonumber(ends) <= now_us() / 1000 then
    states[i] = OVER
  elseif ends then
    states[i] = LIVES
  end
end
return {read_leases(leases, dead), states}
