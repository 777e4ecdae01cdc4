--- The encodings that the sandbox speaks: JSON, forms, base64url, SHA-256.

local cjson = require("cjson").new()
local mime = require("mime")
local url = require("socket.url")

local sorted_keys = require("lucidauth.tables").sorted_keys

cjson.decode_invalid_numbers(false)

local codec = {}

local Array, Raw = {}, {}

--- Marks a list, so that it stays `[]` when it is empty.
---@generic T: table
---@param list T
---@return T
function codec.array(list)
  return setmetatable(list, Array)
end

--- JSON text that is written as it stands, for answers that no encoder makes.
---@param text string
---@return table
function codec.raw(text)
  return setmetatable({ text = text }, Raw)
end

local function encode_string(text)
  -- cjson escapes every slash; URLs read better without.
  return (cjson.encode(text):gsub("\\/", "/"))
end

local function encode(value)
  if type(value) == "string" then
    return encode_string(value)
  elseif type(value) ~= "table" then
    return cjson.encode(value)
  elseif getmetatable(value) == Raw then
    return value.text
  end
  local parts = {}
  if getmetatable(value) == Array or value[1] ~= nil then
    for i, item in ipairs(value) do
      parts[i] = encode(item)
    end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for i, key in ipairs(sorted_keys(value)) do
    parts[i] = encode_string(tostring(key)) .. ":" .. encode(value[key])
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

--- A value as JSON, an object's keys in alphabetical order.
---@param value any
---@return string
function codec.encode_json(value)
  return encode(value)
end

--- JSON text as a value; `null` becomes `codec.null`.
---@param text string
---@return any value nil when the text is not JSON
function codec.decode_json(text)
  local ok, value = pcall(cjson.decode, text)
  if ok then
    return value
  end
end

codec.null = cjson.null

--- Form text as a table.
---@param text string
---@return table<string, string>|nil fields
---@return string|nil message which field was there twice
function codec.decode_form(text)
  local fields = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:gsub("+", " "):match("^([^=]*)=?(.*)$")
    name, value = url.unescape(name), url.unescape(value)
    if fields[name] then
      return nil, "the parameter " .. name .. " is there twice"
    end
    fields[name] = value
  end
  return fields
end

--- A flat table as form text, in alphabetical order.
---@param fields table<string, string|number|boolean>
---@return string
function codec.encode_form(fields)
  local parts = {}
  for i, name in ipairs(sorted_keys(fields)) do
    local value = fields[name]
    if type(value) == "number" then
      value = string.format("%.14g", value)
    end
    parts[i] = url.escape(name) .. "=" .. url.escape(tostring(value))
  end
  return table.concat(parts, "&")
end

--- Percent-decoding, as a query or the Basic scheme needs it.
---@param text string
---@return string
function codec.unescape(text)
  return (url.unescape((text:gsub("+", " "))))
end

---@param text string
---@return string|nil bytes
function codec.decode_base64(text)
  if text:find("[^%w+/=]") then
    return nil
  end
  return (mime.unb64(text))
end

--- base64url(SHA-256(text)), the S256 method of RFC 7636.
---@param text string
---@return string
function codec.s256(text)
  -- the C part is needed for this alone, and loads libsodium
  local sha256 = require("lucidauth.core").sha256
  local encoded = mime.b64((assert(sha256(text))))
  return (encoded:gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end

--- Unpredictable bytes as hexadecimal digits, two a byte.
---@param count integer bytes
---@return string
function codec.random_hex(count)
  local source = assert(io.open("/dev/urandom", "rb"))
  local bytes = source:read(count)
  source:close()
  return (bytes:gsub(".", function(byte)
    return string.format("%02x", byte:byte())
  end))
end

return codec
