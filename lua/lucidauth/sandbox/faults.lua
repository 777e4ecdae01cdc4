--- The faults that wait for the next requests, in the order they were asked.
--
-- A fault is a table:
--   kind      the kind of fault, see KINDS below
--   endpoint  "token" (default), "introspect", "revoke" or "api"
--   when      "before": the request is not processed at all;
--             "after": it is, so a refresh has rotated when the fault strikes
--   times     how many requests it strikes (1), or "always"
-- and the fields of its kind:
--   answer        status, headers, body (text, or a table sent as JSON)
--   transform     the genuine answer with fields `set` or `remove`d, or written
--                 as the JSON text in `raw`; `encoding` "form"; `prefix` and
--                 `suffix` around the JSON; `status` and `headers`
--   hang          no answer, until the client goes
--   close         the connection closes; `reset` = true: with a reset
--   close_reused  the same, but only on a connection that has been used before
--   half          `bytes` of the answer, head included, then the end;
--                 without `bytes`: the head and half of the body
--   flood         a body without end, or of so many `bytes`
--   slow          the answer comes `seconds` late
--   held          the answer comes when the faults are forgotten
--   pass          no fault: lets a request by to reach those behind it

local copy = require("lucidauth.tables").copy

local faults = {}

local ENDPOINTS = { token = true, introspect = true, revoke = true, api = true }

-- When a kind strikes unless told otherwise.
local KINDS = {
  answer = "before",
  transform = "after",
  hang = "before",
  close = "before",
  close_reused = "before",
  half = "after",
  flood = "after",
  slow = "after",
  held = "after",
  pass = "after",
}

-- These give the genuine answer, so the request has to be processed.
local AFTER_ONLY = { transform = true, half = true, pass = true }

local FIELDS = {
  kind = "string",
  endpoint = "string",
  when = "string",
  status = "number",
  headers = "table",
  seconds = "number",
  bytes = "number",
  reset = "boolean",
  set = "table",
  remove = "table",
  raw = "table",
  encoding = "string",
  prefix = "string",
  suffix = "string",
}

local function check_fields(fault)
  for name, value in pairs(fault) do
    local expected = FIELDS[name]
    if expected and type(value) ~= expected then
      return "a fault's " .. name .. " must be a " .. expected
    elseif not expected and name ~= "times" and name ~= "body" then
      return "a fault has no field " .. tostring(name)
    end
  end
end

local function check_times(times)
  if times == nil or times == "always" then
    return nil
  elseif type(times) ~= "number" or times < 1 or times % 1 ~= 0 then
    return 'a fault\'s times must be a whole number from 1 on, or "always"'
  end
end

local function check_status(status)
  if status and (status < 100 or status > 999 or status % 1 ~= 0) then
    return "a fault's status must be a whole number of three digits"
  end
end

local function check_headers(headers)
  for name, value in pairs(headers or {}) do
    local scalar = type(value) == "string" or type(value) == "number"
    if type(name) ~= "string" or not scalar then
      return "a fault's headers must be names with text or numbers"
    end
  end
end

local function check_kind(fault)
  if not KINDS[fault.kind] then
    return "no such kind of fault: " .. tostring(fault.kind)
  elseif fault.kind == "answer" and not fault.status then
    return "an answer fault needs a status"
  elseif fault.kind == "slow" and not fault.seconds then
    return "a slow fault needs seconds"
  elseif fault.when == "before" and AFTER_ONLY[fault.kind] then
    return "a " .. fault.kind .. " fault can only strike after the request"
      .. " was processed"
  end
end

local function check(fault)
  if type(fault) ~= "table" then
    return "a fault must be a table"
  elseif fault.endpoint and not ENDPOINTS[fault.endpoint] then
    return "no such endpoint: " .. tostring(fault.endpoint)
  elseif fault.when and fault.when ~= "before" and fault.when ~= "after" then
    return 'a fault\'s when must be "before" or "after"'
  elseif fault.encoding and fault.encoding ~= "form" then
    return 'a fault\'s encoding can only be "form"'
  end
  return check_fields(fault)
    or check_kind(fault)
    or check_times(fault.times)
    or check_status(fault.status)
    or check_headers(fault.headers)
end

local function complete(fault)
  local result = copy(fault)
  result.endpoint = fault.endpoint or "token"
  result.when = fault.when or KINDS[fault.kind]
  result.times = fault.times or 1
  return result
end

local Queue = {}
Queue.__index = Queue

function faults.new()
  return setmetatable({ list = {}, held = {} }, Queue)
end

--- Adds faults behind those that wait already: all of them, or none.
---@param list table[]
---@return boolean|nil ok
---@return string|nil message
function Queue:add(list)
  for _, fault in ipairs(list) do
    local message = check(fault)
    if message then
      return nil, message
    end
  end
  for _, fault in ipairs(list) do
    self.list[#self.list + 1] = complete(fault)
  end
  return true
end

function Queue:use_up(place)
  local fault = self.list[place]
  if fault.times ~= "always" then
    fault.times = fault.times - 1
    if fault.times == 0 then
      table.remove(self.list, place)
    end
  end
  return fault
end

--- The fault that this request suffers.
---@param endpoint string
---@param reused boolean whether its connection has carried others before
---@return table|nil fault
function Queue:take(endpoint, reused)
  for place, fault in ipairs(self.list) do
    local fits = fault.kind ~= "close_reused" or reused
    if fault.endpoint == endpoint and fits then
      fault = self:use_up(place)
      return fault.kind ~= "pass" and fault or nil
    end
  end
end

function Queue:clear()
  self.list = {}
end

return faults
