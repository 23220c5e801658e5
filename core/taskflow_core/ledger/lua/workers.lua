-- The reports of a namespace's workers, and what was asked of them. Workers write the reports: what is too much is removed.
-- KEYS workers intake; ARGV limit bytes
-- Returns {removed, {name, report...}, {name, asked...}}
local removed, reports = 0, {}
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then
  removed = redis.call('HLEN', KEYS[1])
  redis.call('UNLINK', KEYS[1])
end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if #all[i] <= 253 and #all[i + 1] <= tonumber(ARGV[2]) then
    reports[#reports + 1] = all[i]
    reports[#reports + 1] = all[i + 1]
  else
    redis.call('HDEL', KEYS[1], all[i])
    removed = removed + 1
  end
end
return {removed, reports, redis.call('HGETALL', KEYS[2])}
