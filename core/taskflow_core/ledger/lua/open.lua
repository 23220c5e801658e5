-- Begin the life of a namespace's keys, unless it has begun: the streams have their groups from their first entry on.
-- KEYS epoch events notes unmirrored; ARGV epoch
-- Returns {began, unmirrored}: 1 if it began now, and the mark that the history has not seen to, or ''.
if redis.call('EXISTS', KEYS[1]) == 1 then return {0, redis.call('GET', KEYS[4]) or ''} end
for _, each in ipairs({{KEYS[2], 'cr'}, {KEYS[2], 'pg'}, {KEYS[3], 'pg'}}) do
  local made = redis.pcall('XGROUP', 'CREATE', each[1], each[2], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[4], ARGV[1])
return {1, ARGV[1]}
