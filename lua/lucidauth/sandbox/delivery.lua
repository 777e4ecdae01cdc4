--- How an answer reaches the client, or fails to.
-- Each way takes { server, stream, request, answer, fault } and returns whether
-- the connection may carry another request.

local codec = require("lucidauth.sandbox.codec")
local http = require("lucidauth.sandbox.http")

local delivery = {}

local SEND_SECONDS = 60
local FLOOD_CHUNK = ("a"):rep(64 * 1024)

local function send(one, answer, keep_alive)
  local head, body = http.format(answer, keep_alive)
  if one.request.method == "HEAD" then
    body = ""
  end
  one.stream:allow(SEND_SECONDS)
  return one.stream:send(head .. body) and keep_alive
end

local function plainly(one)
  return send(one, one.answer, one.request.keep_alive)
end

-- With headers of its own an answer may lie about where it ends.
local function owns_framing(headers)
  for name in pairs(headers or {}) do
    name = name:lower()
    if name == "connection" or name == "content-length"
      or name == "transfer-encoding" then
      return true
    end
  end
  return false
end

local function answer(one)
  local fault = one.fault
  local is_json = type(fault.body) == "table"
  local keep_alive = one.request.keep_alive and not owns_framing(fault.headers)
  return send(one, {
    status = fault.status,
    headers = fault.headers,
    json = is_json and fault.body or nil,
    body = not is_json and tostring(fault.body or "") or nil,
  }, keep_alive)
end

local function transform_fields(fault, genuine)
  local fields = {}
  for name, value in pairs(genuine) do
    fields[name] = value
  end
  for _, name in ipairs(fault.remove or {}) do
    fields[name] = nil
  end
  for name, value in pairs(fault.set or {}) do
    fields[name] = value
  end
  for name, text in pairs(fault.raw or {}) do
    fields[name] = codec.raw(text)
  end
  return fields
end

local function transform(one)
  local fault, genuine = one.fault, one.answer
  local fields = transform_fields(fault, genuine.json or {})
  local is_form = fault.encoding == "form"
  local keep_alive = one.request.keep_alive and not owns_framing(fault.headers)
  return send(one, {
    status = fault.status or genuine.status,
    headers = fault.headers or genuine.headers,
    json = not is_form and fields or nil,
    form = is_form and fields or nil,
    prefix = fault.prefix,
    suffix = fault.suffix,
  }, keep_alive)
end

local function hang(one)
  one.stream:allow(math.huge)
  one.stream:drain()
  return false
end

local function close(one)
  if one.fault.reset then
    one.stream:reset()
  end
  return false
end

local function half(one)
  local head, body = http.format(one.answer, one.request.keep_alive)
  local count = one.fault.bytes or #head + math.floor(#body / 2)
  one.stream:allow(SEND_SECONDS)
  one.stream:send((head .. body):sub(1, count))
  return false
end

local function flood(one)
  local stream, left = one.stream, one.fault.bytes or math.huge
  local head = http.format_endless({ status = one.fault.status or 200 })
  stream:allow(SEND_SECONDS)
  local open = stream:send(head .. '{"access_token":"')
  while open and left > 0 do
    stream:allow(SEND_SECONDS)
    open = stream:send(FLOOD_CHUNK:sub(1, math.min(left, #FLOOD_CHUNK)))
    left = left - #FLOOD_CHUNK
    -- A client that reads fast must not keep the others waiting.
    one.server.reactor:sleep(0)
  end
  return false
end

--- Whether a fault only makes an answer late.
---@param fault table
---@return boolean
function delivery.is_late(fault)
  return fault.kind == "slow" or fault.kind == "held"
end

--- Waits for as long as the fault says.
---@param one table
---@return boolean still false: everything was reset meanwhile, and there is nobody to be answered
function delivery.be_late(one)
  local server = one.server
  local journal = server.journal
  if one.fault.kind == "held" then
    server.reactor:park(server.queue.held)
  else
    server.reactor:sleep(one.fault.seconds)
  end
  return server.journal == journal
end

local function late(one)
  return delivery.be_late(one) and plainly(one)
end

local WAYS = {
  answer = answer,
  transform = transform,
  hang = hang,
  close = close,
  close_reused = close,
  half = half,
  flood = flood,
  slow = late,
  held = late,
}

--- Sends the answer, in the way of the fault if there is one.
---@param one table
---@return boolean keep_alive
function delivery.send(one)
  local way = one.fault and WAYS[one.fault.kind] or plainly
  return way(one)
end

return delivery
