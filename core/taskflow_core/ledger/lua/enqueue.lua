-- Enter an attempt in the ledger, so that it may be claimed once. Harmless to repeat.
-- KEYS ledger claim notes; ARGV member uid attempt payload maxlen republish. Without a payload nothing is told.
-- In an array also KEYS array; ARGV field chunk waiting keep_s: what is handed out and what waits are noted in the same step.
-- Returns {state, ledger time in ms}: new = publish it, waiting = it was entered before, taken = somebody claimed it.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if KEYS[4] then
  redis.call('HSET', KEYS[4], ARGV[7], ARGV[8], 'waiting', ARGV[9])
  redis.call('EXPIRE', KEYS[4], ARGV[10])
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'taken', 0} end
local since = redis.call('ZSCORE', KEYS[1], ARGV[1])
if since then
  if ARGV[6] ~= '1' then return {'waiting', tonumber(since)} end
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  return {'new', now}
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'k', 'queued', 'uid', ARGV[2], 'att', ARGV[3], 'ts', now, 'p', ARGV[4])
end
return {'new', now}
