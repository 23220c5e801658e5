-- Take an attempt out of the ledger that nobody has claimed: its message, wherever it is, will be refused.
-- KEYS ledger claim; ARGV member
-- Returns 1 if nobody can claim it now, 0 if somebody has.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then return 1 end
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return 1
