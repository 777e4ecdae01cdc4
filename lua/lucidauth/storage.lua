--- A storage made of Lua functions, asked as the core's own storages are. Their
--- results and errors become one of the core's results: "ok",
--- "none", "busy", or "failed" and a sentence without secrets.

local cjson = require "cjson.safe"
local core = require "lucidauth.core"

local function new_json()
  local json = cjson.new()
  -- Expiries fit into the default's fourteen digits, other numbers may not. The
  -- original lua-cjson raises when it is asked for more, and knows no empty list.
  pcall(json.encode_number_precision, 16)
  if json.decode_array_with_array_mt then
    json.decode_array_with_array_mt(true)
  end
  -- A server may send a number that no double holds, and lists within lists; the
  -- record stays readable.
  json.encode_invalid_numbers("null")
  json.encode_max_depth(4000)
  json.decode_max_depth(4000)
  return json
end

local json = new_json()

local function knows_the_point()
  local sample = json.decode("[0.5]")
  return sample ~= nil and sample[1] == 0.5
end

local function convert_with_a_point(way, value)
  if not knows_the_point() then
    json = new_json()
  end
  return json[way](value)
end

-- lua-cjson notes the decimal point of the locale for the whole process when an
-- instance is made. The program may have set another one since, and may go back.
local function convert(way, value)
  if knows_the_point() then
    return json[way](value)
  end
  return core.in_c_locale(convert_with_a_point, way, value)
end

local function encode(value)
  return convert("encode", value)
end

local function decode(text)
  return convert("decode", text)
end

local M = {}

local longest = 300

-- The text of any error value, even of an object that has none.
local function text_of(reason)
  local ok, text = pcall(tostring, reason)
  return ok and text or type(reason)
end

-- A storage's error text may quote the record: the one in hand, or one that could
-- not be read, whose tokens are unknown.
local function without_secrets(text, record)
  for _, name in ipairs { "access_token", "refresh_token" } do
    local secret = record and record[name]
    if type(secret) == "string" and secret ~= "" then
      text = text:gsub(secret:gsub("%p", "%%%0"), "[secret]")
    end
  end
  text = text:gsub("(_token[\"'%]]*%s*[=:]%s*[\"']?)[^%s\"',;}]+", "%1[secret]")
  return #text > longest and text:sub(1, longest) .. "..." or text
end

local function failed(what, reason, record)
  local text = without_secrets(text_of(reason), record)
  local message = "The storage's function %s failed: %s. No stored token was lost."
  return "failed", message:format(what, text)
end

-- A reason counts beside nil or false alone: a function may end with a call
-- that has more to say than that it worked, as os.execute or pcall.

--- The record's JSON text.
---@param storage LucidStorage
---@param account string
---@return "ok"|"none"|"failed" result
---@return string? text the record, or the reason of the failure
function M.load(storage, account)
  local ok, record, reason = pcall(storage.load, account)
  if not ok then
    return failed("load", record)
  elseif not record and reason ~= nil then
    return failed("load", reason)
  elseif record == nil then
    return "none"
  elseif type(record) ~= "table" then
    return failed("load", "it must return a record (a table) or nil, not a " .. type(record))
  end
  local text, message = encode(record)
  if not text then
    return failed("load", "what it returned is no record: " .. message, record)
  end
  return "ok", text
end

---@param storage LucidStorage
---@param account string
---@param text string the record
---@return "ok"|"failed" result
---@return string? message
function M.save(storage, account, text)
  local record, message = decode(text)
  if not record then
    return failed("save", message)
  end
  local ok, saved, reason = pcall(storage.save, account, record)
  if not ok then
    return failed("save", saved, decode(text))
  elseif not saved and reason ~= nil then
    return failed("save", reason, decode(text))
  elseif saved == false or saved == cjson.null then
    return failed("save", "it returned " .. tostring(saved), decode(text))
  end
  return "ok"
end

local taken = "it must return true, or a text or a table, once it has the lock, and false or nil "
  .. "while somebody else has it; it returned "

local says_taken = { boolean = true, string = true, table = true }

--- The result of one call of `lock`, one try. Drivers return nil or a null for a
--- key that is there already. An ambiguous result is refused: two lock holders would
--- spend one token twice.
---@param answer table the results of pcall(lock), and `n`
---@return "ok"|"busy"|"failed" result
---@return string? message
function M.lock_result(answer)
  local ok, locked, reason = answer[1], answer[2], answer[3]
  if not ok then
    return failed("lock", locked)
  elseif not locked and reason ~= nil then
    return failed("lock", reason)
  elseif answer.n == 1 then
    return failed("lock", taken .. "no value")
  elseif not locked or locked == cjson.null then
    return "busy"
  elseif not says_taken[type(locked)] then
    return failed("lock", taken .. "a " .. type(locked))
  end
  return "ok"
end

--- The refresh token in a record.
---@param text string
---@return string?
function M.refresh_token_of(text)
  local record = decode(text)
  return record and record.refresh_token
end

--- Whether a refresh is under way, or was when its process ended.
---@param text string
---@return boolean
function M.is_marked(text)
  local record = decode(text)
  return record ~= nil and record.pending ~= nil
end

return M
