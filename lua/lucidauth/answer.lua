--- A token answer that a program has as a table, as JSON text for the core.

local M = {}

local deepest = 100

-- More than the core takes: a table that stands in itself twice has no end.
local most_bytes, most_values = 2 * 1024 * 1024, 100000

local write

local function escape(character)
  return ("\\u%04x"):format(character:byte())
end

local function write_string(text)
  return '"' .. text:gsub('[%c"\\\127]', escape) .. '"'
end

-- The locale may have another decimal point.
local function write_number(number)
  if number ~= number or number == math.huge or number == -math.huge then
    return "null"
  end
  return (("%.17g"):format(number):gsub("[^%w.+-]", "."))
end

-- The fields are read raw: a metatable's functions may fail, or never end.
local function write_list(list, budget, depth)
  local parts = {}
  for _ in next, list do
    local i = #parts + 1
    parts[i] = write(rawget(list, i), budget, depth)
    if not parts[i] then
      return nil
    end
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

local function write_object(object, budget, depth)
  local parts = {}
  for name, value in next, object do
    local key = type(name) == "string" and write(name, budget, depth)
    local text = key and write(value, budget, depth)
    if not text then
      return nil
    end
    parts[#parts + 1] = key .. ":" .. text
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- A JSON library's null: a userdata that can nothing, or an empty table that
-- says how it is written.
local function is_null(value, kind)
  local meta = getmetatable(value)
  if kind == "userdata" then
    return meta == nil
  end
  return kind == "table" and next(value) == nil and type(meta) == "table"
    and rawget(meta, "__tojson") ~= nil
end

function write(value, budget, depth)
  local kind = type(value)
  budget.values = budget.values - 1
  budget.bytes = budget.bytes - (kind == "string" and #value or 1)
  if budget.values < 0 or budget.bytes < 0 then
    return nil
  elseif kind == "string" then
    return write_string(value)
  elseif kind == "number" then
    return write_number(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif is_null(value, kind) then
    return "null"
  elseif kind ~= "table" or depth > deepest then
    return nil
  end
  return (rawget(value, 1) ~= nil and write_list or write_object)(value, budget, depth + 1)
end

--- Nil when there is something in it that JSON cannot hold, or no end of it.
---@param answer table
---@return string? text
function M.encode(answer)
  return (write(answer, { bytes = most_bytes, values = most_values }, 1))
end

return M
