-- Take an attempt: the first statement of every execution.
-- KEYS ledger claim leases stream epoch; ARGV member uid attempt holder prefix token worker lease_ms claim_s maxlen
-- Returns {granted, epoch}. The holder names one execution, so a claim whose answer was lost may be repeated.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = redis.call('GET', KEYS[5]) or ''
local owner = redis.call('GET', KEYS[2])
if owner == ARGV[4] then return {1, epoch} end
-- A heartbeat between delivery and claim may have entered it for this very process (see heartbeat.lua).
local free = not owner or owner == ARGV[5] .. '?'
if not free or redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[10], '*', 'k', 'duplicate', 'uid', ARGV[2], 'att', ARGV[3],
    'tok', ARGV[6], 'w', ARGV[7], 'ts', now, 'p', '{}')
  return {0, epoch}
end
redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[9])
redis.call('ZADD', KEYS[3], now + ARGV[8], ARGV[1])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[10], '*', 'k', 'started', 'uid', ARGV[2], 'att', ARGV[3],
  'tok', ARGV[6], 'w', ARGV[7], 'ts', now, 'p', '{}')
return {1, epoch}
