-- End an execution: its outcome counts only if it still holds the attempt. Repeating it changes nothing.
-- KEYS claim leases stream epoch; ARGV member uid attempt holder prefix token worker kind payload known_epoch keep_s maxlen
-- Returns 1 if the outcome counts, 0 if the attempt was taken away meanwhile.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local owner = redis.call('GET', KEYS[1])
if owner == 'done|' .. ARGV[4] then return 1 end
local mine = owner == ARGV[4] or owner == ARGV[5] .. '?'
local forgotten = not owner and (redis.call('GET', KEYS[4]) or '') ~= ARGV[10]
local kind = ARGV[8]
if not mine and not forgotten then kind = 'stale' end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[12], '*', 'k', kind, 'uid', ARGV[2], 'att', ARGV[3],
  'tok', ARGV[6], 'w', ARGV[7], 'ts', now, 'p', ARGV[9])
if kind == 'stale' then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], 'done|' .. ARGV[4], 'EX', ARGV[11])
return 1
