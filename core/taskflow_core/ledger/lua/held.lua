-- What a worker holds, by the name of its pod.
-- KEYS leases; ARGV claim_prefix worker_prefix limit member_bytes
-- Returns {now, member, claim, lease_until...}.
local t = redis.call('TIME')
local found = {t[1] * 1000 + math.floor(t[2] / 1000)}
local leases = redis.call('ZRANGE', KEYS[1], 0, ARGV[3] - 1, 'WITHSCORES')
for i = 1, #leases, 2 do
  if #leases[i] <= tonumber(ARGV[4]) then
    local claim = ARGV[1] .. leases[i]
    local owner = redis.call('TYPE', claim).ok == 'string' and redis.call('GETRANGE', claim, 0, 511) or ''
    if string.sub(owner, 1, #ARGV[2]) == ARGV[2] then
      found[#found + 1] = leases[i]
      found[#found + 1] = owner
      found[#found + 1] = leases[i + 1]
    end
  end
end
return found
