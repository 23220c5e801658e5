-- Take away attempts whose lease ran out, by Redis' own clock, or whose holder is known to be dead. The claim stays, marked, so that a late finish is refused.
-- KEYS leases stream claim...; ARGV keep_s maxlen, then member uid attempt token payload holder for each claim. One without a token is nobody's attempt. With a holder, the lease counts as run out while that is the claim.
-- Returns the members that are lost.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lost = {}
for i = 3, #KEYS do
  local at = 3 + (i - 3) * 6
  local member, uid, attempt, token, payload, holder = unpack(ARGV, at, at + 5)
  local score = redis.call('ZSCORE', KEYS[1], member)
  local until_ms = tonumber(score or 'inf')
  local dead = holder ~= '' and score and redis.call('GETRANGE', KEYS[i], 0, 511) == holder
  if until_ms < now or dead then
    redis.call('ZREM', KEYS[1], member)
    if token ~= '' then
      local owner = string.sub(redis.call('GETRANGE', KEYS[i], 0, 511), 1, 512)
      -- A worker may have written anything there; the event must be one all the same.
      local worker = string.match(owner, '^([^|]*)')
      if #worker > 253 or string.find(worker, '[^%w%p]') then worker = '' end
      redis.call('SET', KEYS[i], 'lost|' .. owner, 'EX', ARGV[1])
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'k', 'lost', 'uid', uid, 'att', attempt, 'tok', token,
        'w', worker, 'ts', now, 'p', payload)
      lost[#lost + 1] = member
    end
  end
end
return lost
