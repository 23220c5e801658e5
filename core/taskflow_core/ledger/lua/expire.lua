-- Take away attempts whose lease ran out, by Redis' own clock. The claim stays, marked, so that a late finish is refused.
-- KEYS leases stream claim...; ARGV payload keep_s maxlen, then member uid attempt token for each claim. One without a token is nobody's attempt.
-- Returns the members that are lost.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lost = {}
for i = 3, #KEYS do
  local at = 4 + (i - 3) * 4
  local member, uid, attempt, token = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local until_ms = tonumber(redis.call('ZSCORE', KEYS[1], member) or 'inf')
  if until_ms < now then
    redis.call('ZREM', KEYS[1], member)
    if token ~= '' then
      local owner = string.sub(redis.call('GETRANGE', KEYS[i], 0, 511), 1, 512)
      -- A worker may have written anything there; the event must be one all the same.
      local worker = string.match(owner, '^([^|]*)')
      if #worker > 253 or string.find(worker, '[^%w%p]') then worker = '' end
      redis.call('SET', KEYS[i], 'lost|' .. owner, 'EX', ARGV[2])
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'k', 'lost', 'uid', uid, 'att', attempt, 'tok', token,
        'w', worker, 'ts', now, 'p', ARGV[1])
      lost[#lost + 1] = member
    end
  end
end
return lost
