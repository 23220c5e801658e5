-- Renew the leases of one worker process, all in one call.
-- KEYS leases epoch stops claim...; ARGV known_epoch lease_ms claim_s, then member and holder prefix for each claim
-- Returns {epoch, {fenced member...}, {member, reason, ... of those that are to stop}}. If Redis lost its data since the worker last looked, what it runs is entered again.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = redis.call('GET', KEYS[2]) or ''
local fenced, stops = {}, {}
for i = 4, #KEYS do
  local member = ARGV[4 + (i - 4) * 2]
  local prefix = ARGV[5 + (i - 4) * 2]
  local owner = redis.call('GET', KEYS[i])
  if owner and string.sub(owner, 1, #prefix) == prefix then
    redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], member)
    redis.call('EXPIRE', KEYS[i], ARGV[3])
    local reason = redis.call('HGET', KEYS[3], member)
    if reason then
      stops[#stops + 1] = member
      stops[#stops + 1] = reason
    end
  elseif owner then
    if string.sub(owner, 1, 5 + #prefix) ~= 'done|' .. prefix then fenced[#fenced + 1] = member end
  elseif epoch ~= ARGV[1] then
    redis.call('SET', KEYS[i], prefix .. '?', 'EX', ARGV[3])
    redis.call('ZADD', KEYS[1], now + ARGV[2], member)
  end
end
return {epoch, fenced, stops}
