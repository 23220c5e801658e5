-- End an execution from outside it: its process died, or it has to stop before it is done.
-- KEYS claim leases stream; ARGV member uid attempt prefix token worker kind payload keep_s maxlen
-- Returns 1 if the execution still held the attempt.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local owner = redis.call('GET', KEYS[1])
if not owner or string.sub(owner, 1, #ARGV[4]) ~= ARGV[4] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[7] .. '|' .. owner, 'EX', ARGV[9])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], '*', 'k', ARGV[7], 'uid', ARGV[2], 'att', ARGV[3],
  'tok', ARGV[5], 'w', ARGV[6], 'ts', now, 'p', ARGV[8])
return 1
