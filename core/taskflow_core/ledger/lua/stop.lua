-- Ask whoever holds an attempt to stop; nobody is asked whose lease is over, since nobody would take the request back.
-- KEYS leases stops; ARGV member reason
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
