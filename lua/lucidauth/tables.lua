--- Functions for plain tables, and for text from outside.

local M = {}

--- The same fields in a table of its own.
---@param fields table<any, any>
---@return table<any, any>
function M.copy(fields)
  local result = {}
  for name, value in pairs(fields) do
    result[name] = value
  end
  return result
end

local function before(one, other)
  return tostring(one) < tostring(other)
end

--- The keys in an order that is always the same.
---@param map table<any, any>
---@return any[]
function M.sorted_keys(map)
  local keys = {}
  for key in pairs(map) do
    keys[#keys + 1] = key
  end
  table.sort(keys, before)
  return keys
end

local function as_hex(character)
  return ("\\x%02x"):format(character:byte())
end

local function as_unicode(character)
  local code = character:byte() % 16
  for i = 2, #character do
    code = code * 64 + character:byte(i) % 64
  end
  return ("\\u%04x"):format(code)
end

-- C1, the soft hyphen, marks of direction, characters without width.
local unseen = { "\194[\128-\159]", "\194\173", "\216\156", "\226\128[\139-\143]",
  "\226\128[\168-\174]", "\226\129[\160-\175]", "\239\187\191" }

--- Text that forges no line and drives no terminal, as the core shows it.
---@param text string
---@return string
function M.printable(text)
  text = text:gsub("\n", "\\n"):gsub("%c", as_hex)
  for _, pattern in ipairs(unseen) do
    text = text:gsub(pattern, as_unicode)
  end
  return text
end

return M
