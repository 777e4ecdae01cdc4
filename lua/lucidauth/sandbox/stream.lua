--- A TCP connection that a coroutine reads and writes as if it would block.

local socket = require("socket")

local stream = {}

local CHUNK = 8192

local Stream = {}
Stream.__index = Stream

---@param loop table the loop that the calling coroutines belong to
---@param client table a connected socket; the stream closes it
function stream.new(loop, client)
  client:settimeout(0)
  -- Without it a short answer would wait for an acknowledgement.
  client:setoption("tcp-nodelay", true)
  return setmetatable({
    loop = loop,
    socket = client,
    buffer = "",
  }, Stream)
end

--- Gives every read and write from now on this much time, all together.
---@param seconds number
function Stream:allow(seconds)
  self.deadline = socket.gettime() + seconds
end

-- Adds the bytes that have arrived to the buffer, waiting for them if need be.
function Stream:fill()
  while true do
    local data, reason, part = self.socket:receive(CHUNK)
    data = data or part
    if data ~= "" then
      self.buffer = self.buffer .. data
      return true
    elseif reason ~= "timeout" then
      return nil, reason
    elseif not self.loop:wait_readable(self.socket, self.deadline) then
      return nil, "timeout"
    end
  end
end

--- A line without its end.
---@param limit integer bytes
---@return string|nil line
---@return string|nil reason "closed", "timeout" or "limit"
function Stream:line(limit)
  local from = 1
  while true do
    local stop = self.buffer:find("\n", from, true)
    if (stop or #self.buffer) > limit then
      return nil, "limit"
    elseif stop then
      local line = self.buffer:sub(1, stop - 1):gsub("\r$", "")
      self.buffer = self.buffer:sub(stop + 1)
      return line
    end
    from = #self.buffer + 1
    local ok, reason = self:fill()
    if not ok then
      return nil, reason
    end
  end
end

--- Exactly so many bytes.
---@param count integer
---@return string|nil bytes
---@return string|nil reason "closed" or "timeout"
function Stream:read(count)
  while #self.buffer < count do
    local ok, reason = self:fill()
    if not ok then
      return nil, reason
    end
  end
  local bytes = self.buffer:sub(1, count)
  self.buffer = self.buffer:sub(count + 1)
  return bytes
end

--- Whether anything is there to be read, waiting for it if need be.
---@return boolean
function Stream:has_more()
  return self.buffer ~= "" or self:fill() == true
end

--- Reads and forgets until the other side closes, or the time is up.
function Stream:drain()
  repeat
    self.buffer = ""
  until not self:fill()
end

---@param data string
---@return boolean sent false when the other side is gone
function Stream:send(data)
  local first = 1
  while true do
    local last, reason, partial = self.socket:send(data, first)
    if last then
      return true
    elseif reason ~= "timeout" then
      return false
    end
    first = partial + 1
    if not self.loop:wait_writable(self.socket, self.deadline) then
      return false
    end
  end
end

--- Says that nothing more will be sent, but still reads.
function Stream:finish()
  self.socket:shutdown("send")
end

function Stream:close()
  self.socket:close()
end

--- Closes so that the other side sees a reset instead of an end.
function Stream:reset()
  self.socket:setoption("linger", { on = true, timeout = 0 })
  self.socket:close()
end

return stream
