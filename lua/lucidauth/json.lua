--- Records as JSON text and as Lua tables, for storages written in Lua. The text
--- that is read is the core's own: one line, escapes for what must have one.
--- lua-cjson would take fourteen digits of a number and make {} of [].

local cjson = require "cjson"

local M = {}

local null = cjson.null
local deepest = 1000

--- The metatable of lists that are empty; a cjson that knows such a mark heeds
--- it too.
M.list = cjson.array_mt or {}

-- Reading -------------------------------------------------------------------

local read_value

local function read_string(text, from)
  local at = from + 1
  local stop = text:find('["\\]', at)
  while text:sub(stop, stop) == "\\" do
    stop = text:find('["\\]', stop + 2)
  end
  local value = text:sub(at, stop - 1)
  if value:find("\\", 1, true) then
    value = value:gsub("\\(.)", { ['"'] = "\\u0022", ["\\"] = "\\u005c" })
      :gsub("\\u00(%x%x)", function(code)
        return string.char(tonumber(code, 16))
      end)
  end
  return value, stop + 1
end

local function read_list(text, from)
  local list, at = {}, from + 1
  if text:sub(at, at) == "]" then
    return setmetatable(list, M.list), at + 1
  end
  repeat
    list[#list + 1], at = read_value(text, at)
    at = at + 1
  until text:sub(at - 1, at - 1) == "]"
  return list, at
end

local function read_object(text, from)
  local object, at = {}, from + 1
  if text:sub(at, at) == "}" then
    return object, at + 1
  end
  repeat
    local name
    name, at = read_string(text, at)
    object[name], at = read_value(text, at + 1)
    at = at + 1
  until text:sub(at - 1, at - 1) == "}"
  return object, at
end

local words = { t = { true, 4 }, f = { false, 5 }, n = { null, 4 } }

function read_value(text, from)
  local first = text:sub(from, from)
  if first == '"' then
    return read_string(text, from)
  elseif first == "{" then
    return read_object(text, from)
  elseif first == "[" then
    return read_list(text, from)
  elseif words[first] then
    return words[first][1], from + words[first][2]
  end
  local number = text:match("^[%-+.%deE]+", from)
  return tonumber(number), from + #number
end

--- The record in a text that the core has written.
---@param text string
---@return table?
---@return string? message
function M.decode(text)
  local ok, value = pcall(read_value, text, 1)
  if ok and type(value) == "table" then
    return value
  end
  return nil, "it is not the JSON text of a record"
end

-- Writing -------------------------------------------------------------------

local write_value

local function write_string(value)
  return '"' .. value:gsub('[%z\1-\31"\\]', function(character)
    return ("\\u%04x"):format(character:byte())
  end) .. '"'
end

-- Whole numbers without an exponent, others with as many digits as it takes.
local function write_number(value)
  if value ~= value or value == math.huge or value == -math.huge then
    return "null"
  elseif math.type and math.type(value) == "integer" then
    return ("%d"):format(value)
  elseif value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 then
    return ("%.0f"):format(value)
  end
  for digits = 15, 17 do
    local text = ("%%.%dg"):format(digits):format(value)
    if tonumber(text) == value then
      return (text:gsub(",", "."))
    end
  end
end

local function write_list(list, depth)
  local parts = {}
  for i, value in ipairs(list) do
    parts[i] = write_value(value, depth)
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function write_object(object, depth)
  local parts = {}
  for name, value in pairs(object) do
    if type(name) ~= "string" then
      error("a table has names and numbers, or gaps", 0)
    end
    parts[#parts + 1] = write_string(name) .. ":" .. write_value(value, depth)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function is_list(value)
  local count = 0
  for _ in pairs(value) do
    count = count + 1
  end
  return count == #value and (count > 0 or getmetatable(value) == M.list)
end

function write_value(value, depth)
  local kind = type(value)
  if kind == "string" then
    return write_string(value)
  elseif kind == "number" then
    return write_number(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif value == null then
    return "null"
  elseif kind ~= "table" then
    error("JSON knows no " .. kind, 0)
  elseif depth > deepest then
    error("it is nested too deeply, or within itself", 0)
  end
  return (is_list(value) and write_list or write_object)(value, depth + 1)
end

--- A table as JSON text.
---@param value table
---@return string? text
---@return string? message
function M.encode(value)
  local ok, text = pcall(write_value, value, 1)
  if ok then
    return text
  end
  return nil, text
end

return M
