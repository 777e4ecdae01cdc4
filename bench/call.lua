--- What one call costs in this interpreter, with a token that is good: prints
--- nanoseconds for each kind of call, and the bytes that a million calls
--- leave behind.

local probe = require("probe")
local lucid = require("lucidauth")

local CALLS, ROUNDS = 50000, 300
local MANY = 1000000

local app = lucid.new({})
local many = lucid.new({ storage = { type = "file", directory = assert(arg[1]) } })
assert(lucid.token())
assert(app:token())
assert(many:token("anna"))

-- The same source for each kind and its reference, compiled anew for each: so
-- all have the same loop, and a compiler cannot mix them up.
local function loop_of(call, object)
  local source = "local object, calls = ... for _ = 1, calls do " .. call .. " end"
  local run = assert((loadstring or load)(source))
  return function(calls)
    run(object, calls)
  end
end

local nothing = { token = probe.empty, authorization = probe.empty }

-- Each way of asking, and the same call of a function that does nothing.
local ways = {
  { "lucid.token()", "object.token()", lucid },
  { "lucid.authorization()", "object.authorization()", lucid },
  { "lucid.token(nil)", "object.token(nil)", lucid },
  { "client:token()", "object:token()", app },
  { "client:authorization()", "object:authorization()", app },
  { "client:token(name)", "object:token('anna')", many },
  { "client:authorization(name)", "object:authorization('anna')", many },
}

local kinds = {}
for _, way in ipairs(ways) do
  kinds[#kinds + 1] = { way[1], loop_of(way[2], way[3]) }
  kinds[#kinds + 1] = { way[1] .. " empty", loop_of(way[2], nothing) }
end

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
for i = 1, #kinds, 2 do
  kinds[i][2](MANY)
end
print(("allocated: %.0f"):format((collectgarbage("count") - before) * 1024))
