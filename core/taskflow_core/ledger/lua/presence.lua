-- A worker says how it is, and hears whether it may take messages. Times are Redis' own, so that no other clock counts.
-- KEYS workers intake; ARGV name, report (a JSON object without its times), ms since it accepted a request or ''
-- Returns what the operator set for its intake, or ''.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local claimed = 'null'
if ARGV[3] ~= '' then claimed = string.format('%.0f', now - ARGV[3]) end
local times = string.format(',"claimedMs":%s,"atMs":%.0f}', claimed, now)
redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[2], 1, -2) .. times)
return redis.call('HGET', KEYS[2], ARGV[1]) or ''
