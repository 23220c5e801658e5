-- The next entries of a consumer group, as much of them as is safe to take: their writer may have written anything.
-- KEYS stream; ARGV group start steps field_bytes total_bytes
-- Returns {ended, {id, {field, value...}...}}. Fields that are too long are left out; ended = 1 if there is nothing more.
local start, left, found = ARGV[2], tonumber(ARGV[5]), {}
for _ = 1, ARGV[3] do
  local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[1], 'COUNT', 4, 'STREAMS', KEYS[1], start)
  local entries = answer and answer[1][2] or {}
  for _, entry in ipairs(entries) do
    local kept, fields = {}, entry[2] or {}
    for i = 1, math.min(#fields, 32), 2 do
      if #fields[i] <= 16 and #fields[i + 1] <= tonumber(ARGV[4]) then
        kept[#kept + 1] = fields[i]
        kept[#kept + 1] = fields[i + 1]
        left = left - #fields[i + 1]
      end
    end
    found[#found + 1] = {entry[1], kept}
  end
  if #entries < 4 then return {1, found} end
  if left <= 0 then break end
  if start ~= '>' then start = entries[#entries][1] end
end
return {0, found}
