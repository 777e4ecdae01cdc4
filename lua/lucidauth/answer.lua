--- A token answer that a program has as a table, as JSON text for the core.

local M = {}

local deepest = 100

local write

local function escape(character)
  return ("\\u%04x"):format(character:byte())
end

local function write_string(text)
  return '"' .. text:gsub('[%c"\\\127]', escape) .. '"'
end

-- Whatever the locale's decimal point is.
local function write_number(number)
  if number ~= number or number == math.huge or number == -math.huge then
    return "null"
  end
  return (("%.17g"):format(number):gsub("[^%w.+-]", "."))
end

local function write_list(list, depth)
  local parts = {}
  for i = 1, #list do
    parts[i] = write(list[i], depth)
    if not parts[i] then
      return nil
    end
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function write_object(object, depth)
  local parts = {}
  for name, value in pairs(object) do
    local text = type(name) == "string" and write(value, depth)
    if not text then
      return nil
    end
    parts[#parts + 1] = write_string(name) .. ":" .. text
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- A JSON library's null is a userdata.
function write(value, depth)
  local kind = type(value)
  if kind == "string" then
    return write_string(value)
  elseif kind == "number" then
    return write_number(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "userdata" then
    return "null"
  elseif kind ~= "table" or depth > deepest then
    return nil
  end
  return (#value > 0 and write_list or write_object)(value, depth + 1)
end

--- Nil when there is something in it that JSON cannot hold.
---@param answer table
---@return string? text
function M.encode(answer)
  return (write(answer, 1))
end

return M
