-- The generic cell rate algorithm (ITU-T I.371) for several limits at once: either all of them allow the request, or none counts it.
-- KEYS: one for each limit. ARGV: the cost, then for each limit its emission interval (microseconds per unit) and its quota (units).
-- Returns for each limit: 1 if it allows the request; remaining units; microseconds until the quota is whole; microseconds to wait.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local cost = tonumber(ARGV[1])
local passes, found, tats = true, {}, {}
for i, key in ipairs(KEYS) do
  local interval, quota = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local tat = math.max(tonumber(redis.call('GET', key) or '0'), now)
  local burst = interval * quota
  -- A request that costs more than the quota would never pass. It consumes the whole quota.
  local after = tat + interval * math.min(cost, quota)
  local wait = after - burst - now
  tats[i] = after
  if wait > 0 then passes = false end
  found[i] = {wait > 0 and 0 or 1, math.floor((burst - (tat - now)) / interval), tat - now, math.max(wait, 0)}
end
for i, key in ipairs(KEYS) do
  if passes then
    local interval, quota = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    redis.call('SET', key, string.format('%.0f', tats[i]), 'PX', math.ceil((tats[i] - now) / 1000) + 1000)
    found[i][2] = math.floor((interval * quota - (tats[i] - now)) / interval)
    found[i][3] = tats[i] - now
  end
  found[i][3] = math.ceil(found[i][3])
  found[i][4] = math.ceil(found[i][4])
end
return found
