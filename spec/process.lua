--- Other processes on the same storage, for the specs on sharing: each has a
--- client of its own and does what it is told, while the spec goes on.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")

local process = {}

-- One chunk of Lua a line, packed as JSON; its results go back the same way.
local PROGRAM = [[
local codec = require("lucidauth.sandbox.codec")
local socket = require("socket")
local lucid = require("lucidauth")
local options = codec.decode_json(io.read("*l"))
local events = {}
options.on_event = function(event)
  events[#events + 1] = event.name
end
io.stdout:setvbuf("no")
local client = lucid.new(options)
local scope = setmetatable({ lucid = lucid, options = options, events = events,
  client = client, socket = socket }, { __index = _G })
for line in io.lines() do
  local chunk = assert((loadstring or load)(codec.decode_json(line).code))
  if setfenv then
    setfenv(chunk, scope)
  else
    debug.setupvalue(chunk, 1, scope)
  end
  local began = socket.gettime()
  local results = { pcall(chunk) }
  local answer = { seconds = socket.gettime() - began, ok = results[1] }
  for i = 1, 3 do
    answer[tostring(i)] = results[i + 1]
  end
  io.write(codec.encode_json(answer), "\n")
end
]]

---@class spec.Peer
---@field pid integer
---@field partner helper.Partner
---@field seconds number how long the latest answer took
local Peer = {}
Peer.__index = Peer

--- Starts a process with a client of these options.
---@param options table as lucid.new takes them, without functions
---@return spec.Peer
function process.start(options)
  local partner = helper.start_partner(("exec %s -e %s"):format(
    helper.quote(helper.interpreter), helper.quote(PROGRAM)))
  partner:say(codec.encode_json(options))
  return setmetatable({ partner = partner, pid = partner.pid }, Peer)
end

--- Starts several at once.
---@return spec.Peer[]
function process.start_many(count, options)
  local list = {}
  for i = 1, count do
    list[i] = process.start(options)
  end
  for _, one in ipairs(list) do
    one:run("")
  end
  return list
end

--- Tells it what to do and does not wait.
---@param code string Lua; it sees client, lucid, options, events and socket
function Peer:send(code)
  self.partner:say(codec.encode_json({ code = code }))
end

--- Waits for the results of what was told, in the order it was told.
---@return any, any, any
function Peer:receive()
  local line = self.partner:hear()
  local answer = line and codec.decode_json(line)
  if not answer then
    error("the other process has ended", 2)
  elseif not answer.ok then
    error(answer["1"], 2)
  end
  self.seconds = answer.seconds
  return answer["1"], answer["2"], answer["3"]
end

--- Both.
---@param code string
---@return any, any, any
function Peer:run(code)
  self:send(code)
  return self:receive()
end

--- Ends it as the kernel does when the system is out of memory, and waits until it is gone.
function Peer:kill()
  self.partner:stop("KILL")
end

--- Lets it end by itself.
function Peer:stop()
  self.partner:stop()
end

return process
