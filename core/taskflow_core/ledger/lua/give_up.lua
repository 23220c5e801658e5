-- Declare an attempt lost that nobody holds and that waits nowhere: Redis forgot it, or its end was lost on the way.
-- The event goes behind all others: an end that is in the stream and was not read yet is read first, and counts.
-- KEYS ledger claim leases stream; ARGV member uid attempt payload keep_s maxlen token
-- Returns 1 if it was given up, 0 if somebody holds it or may claim it.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('ZSCORE', KEYS[3], ARGV[1]) or redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
-- From here on a worker that comes back is refused. A claim that is there says how it ended, and stays.
redis.call('SET', KEYS[2], 'lost|', 'NX', 'EX', ARGV[5])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[6], '*', 'k', 'lost', 'uid', ARGV[2], 'att', ARGV[3],
  'tok', ARGV[7], 'ts', now, 'p', ARGV[4])
return 1
