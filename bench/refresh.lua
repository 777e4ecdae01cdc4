--- Refreshes so many times in one process, and prints the nanoseconds that
--- each took.

local probe = require("probe")
local lucid = require("lucidauth")

for _ = 1, tonumber(arg[1]) do
  local began = probe.now()
  assert(lucid.refresh())
  print(("%.0f"):format((probe.now() - began) * 1e9))
end
