-- Close an attempt for good, after its outcome stands in the resource. The claim stays a while as a tombstone, so that
-- an operator with an old view of the Task can't enter the attempt again. Repeating it adds no second event.
-- KEYS ledger claim leases notes stops once; ARGV member uid attempt kind payload keep_s maxlen. Without a payload nothing is told.
-- In an array also KEYS array; ARGV field waiting: the chunk is noted no longer, and what of it waits is, in the same step.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if KEYS[7] then
  redis.call('HDEL', KEYS[7], ARGV[8])
  redis.call('HSET', KEYS[7], 'waiting', ARGV[9])
end
if redis.call('GET', KEYS[2]) == ARGV[4] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('DEL', KEYS[6])
redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[6])
if ARGV[5] ~= '' then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[7], '*', 'k', ARGV[4], 'uid', ARGV[2], 'att', ARGV[3], 'ts', now, 'p', ARGV[5])
end
return 1
