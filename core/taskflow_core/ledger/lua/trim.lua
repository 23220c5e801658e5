-- Drop entries that all groups have acknowledged. Approximately: whole nodes of the stream only.
-- KEYS stream; ARGV the id from which on all are kept, then the names of the groups
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function before(a, b)
  local am, an = string.match(a, '^(%d+)-(%d+)$')
  local bm, bn = string.match(b, '^(%d+)-(%d+)$')
  am, an, bm, bn = tonumber(am), tonumber(an), tonumber(bm), tonumber(bn)
  return am < bm or (am == bm and an < bn)
end
local places = {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  places[group['name']] = group['last-delivered-id']
  if group['pending'] > 0 then places[group['name']] = redis.call('XPENDING', KEYS[1], group['name'])[2] or group['last-delivered-id'] end
end
local oldest = ARGV[1]
for i = 2, #ARGV do
  if not places[ARGV[i]] then return 0 end
  if before(places[ARGV[i]], oldest) then oldest = places[ARGV[i]] end
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', oldest)
