-- Take an attempt out of the ledger that nobody has claimed: its message, wherever it is, will be refused.
-- KEYS ledger claim; ARGV member
-- Returns 1 if nobody can claim it now, 0 if somebody has: also when it was entered anew after lost data, and then its worker came back.
redis.call('ZREM', KEYS[1], ARGV[1])
return 1 - redis.call('EXISTS', KEYS[2])
