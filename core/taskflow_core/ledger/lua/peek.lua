-- Some messages of each list, served last to first; one that is too long is ''.
-- KEYS list...; ARGV bytes, then first and last index for each list
-- Returns {{message...}...}
local found = {}
for i, list in ipairs(KEYS) do
  local some = {}
  for j, message in ipairs(redis.call('LRANGE', list, ARGV[i * 2], ARGV[i * 2 + 1])) do
    some[j] = #message <= tonumber(ARGV[1]) and message or ''
  end
  found[i] = some
end
return found
