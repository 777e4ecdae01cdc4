--- What one call costs in this interpreter, with a token that is good: prints
--- nanoseconds for each kind of call, and the bytes that a million calls
--- leave behind.

local probe = require("probe")
local lucid = require("lucidauth")

local CALLS, ROUNDS = 50000, 300
local MANY = 1000000

local app = lucid.new({})
assert(lucid.token())
assert(app:token())

-- The same source for each kind and its reference, compiled anew for each: so
-- all have the same loop, and a compiler cannot mix them up.
local function loop_of(call, object)
  local source = "local object, calls = ... for _ = 1, calls do " .. call .. " end"
  local run = assert((loadstring or load)(source))
  return function(calls)
    run(object, calls)
  end
end

local nothing = { token = probe.empty }

local kinds = {
  { "function", loop_of("object.token()", lucid) },
  { "empty function", loop_of("object.token()", nothing) },
  { "method", loop_of("object:token()", app) },
  { "empty method", loop_of("object:token()", nothing) },
}

-- Noise only ever adds, so the least of many rounds is the cost; all kinds
-- take turns.
local least = {}
for _ = 1, ROUNDS do
  for _, kind in ipairs(kinds) do
    local name, run = kind[1], kind[2]
    local began = probe.now()
    run(CALLS)
    local took = probe.now() - began
    least[name] = math.min(least[name] or took, took)
  end
end
for _, kind in ipairs(kinds) do
  print(("%s: %.3f"):format(kind[1], least[kind[1]] / CALLS * 1e9))
end

collectgarbage()
collectgarbage("stop")
local before = collectgarbage("count")
kinds[1][2](MANY)
kinds[3][2](MANY)
print(("allocated: %.0f"):format((collectgarbage("count") - before) * 1024))
