#!lua
-- register: a plan into a partition; the same version again answers the number it has
-- KEYS meta hash
-- KEYS never string
-- ARGV epoch string
-- ARGV version string
-- ARGV fields list              two each: field and value of the plan's hash
-- RETURNS {OK, plan number}
-- @include lib/open
local known = call('HGET', prefix .. 'plans', version)
if known then
  return { OK, tonumber(known) }
end
local number = call('HLEN', prefix .. 'plans') + 1
call('DEL', prefix .. 'plan:' .. number) -- what a call left that raised half-way
for first = fields, #ARGV, 3000 do
  call('HSET', prefix .. 'plan:' .. number, unpack(ARGV, first, min(first + 2999, #ARGV)))
end
call('HSET', prefix .. 'plans', version, number)
return { OK, number }
