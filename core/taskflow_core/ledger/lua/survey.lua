-- What a namespace has in flight that needs attention, by Redis' own clock.
-- KEYS leases ledger; ARGV after_ms grace_ms limit expire_limit member_bytes
-- Returns {now, members whose lease ran out, how many members were no attempts and are removed, {member, since...} that wait}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local expired, removed = {}, 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, ARGV[4])) do
  if #member <= tonumber(ARGV[5]) then
    expired[#expired + 1] = member
  else
    redis.call('ZREM', KEYS[1], member)
    removed = removed + 1
  end
end
local waiting = redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[1], '(' .. (now - ARGV[2]), 'WITHSCORES', 'LIMIT', 0, ARGV[3])
return {now, expired, removed, waiting}
