-- How a consumer group stands to its stream.
-- KEYS stream; ARGV group sizes
-- Returns {length, entries added, last id, first id, delivered id, pending, oldest pending id, lag, oldest unread id, bytes or 0}; nothing if the group does not exist.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local function fields(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
local group
for _, each in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local one = fields(each)
  if one['name'] == ARGV[1] then group = one end
end
if not group then return {} end
local info, delivered = fields(redis.call('XINFO', 'STREAM', KEYS[1])), group['last-delivered-id']
local first = info['first-entry'] and info['first-entry'][1] or ''
local oldest, unread = '', ''
if group['pending'] > 0 then oldest = redis.call('XPENDING', KEYS[1], ARGV[1])[2] or '' end
local last = info['last-generated-id']
if delivered ~= last then
  local following = redis.call('XRANGE', KEYS[1], '(' .. delivered, '+', 'COUNT', 1)
  unread = following[1] and following[1][1] or ''
end
local bytes = 0
if ARGV[2] == '1' then bytes = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) or 0 end
return {info['length'], info['entries-added'] or info['length'], last, first, delivered, group['pending'], oldest, group['lag'] or 0, unread, bytes}
