-- Take away the attempts whose lease ran out, by Redis' own clock. The claim stays, marked, so that a late finish is refused.
-- KEYS leases stream; ARGV claim_prefix payload limit keep_s maxlen
-- Returns the members.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, ARGV[3])
for _, member in ipairs(members) do
  local uid, attempt = string.match(member, '^([^:]+):(.+)$')
  local owner = redis.call('GET', ARGV[1] .. member) or ''
  redis.call('ZREM', KEYS[1], member)
  redis.call('SET', ARGV[1] .. member, 'lost|' .. owner, 'EX', ARGV[4])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'k', 'lost', 'uid', uid, 'att', attempt,
    'w', string.match(owner, '^([^|]*)') or '', 'ts', now, 'p', ARGV[2])
end
return members
