--- What is done with plain tables in several places.

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

return M
