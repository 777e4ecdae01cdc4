--- Carries refreshes out over a storage made of Lua functions. The core
--- decides each step; these functions may yield, and may fail.

local cjson = require "cjson.safe"
local core = require "lucidauth.core"

local json = cjson.new()
-- expiries have thirteen digits and fractions; the default would round them
json.encode_number_precision(16)

local M = {}

local longest = 300

-- What a storage says of its failure may quote the record.
local function without_secrets(text, record)
  for _, name in ipairs { "access_token", "refresh_token" } do
    local secret = record and record[name]
    if type(secret) == "string" and secret ~= "" then
      text = text:gsub(secret:gsub("%p", "%%%0"), "[secret]")
    end
  end
  return #text > longest and text:sub(1, longest) .. "..." or text
end

local function failed(what, reason, record)
  local text = without_secrets(tostring(reason), record)
  local message = "The storage's function %s failed: %s. No stored token was lost."
  return "failed", message:format(what, text)
end

local steps = {}

function steps.load(storage, account)
  local ok, record, reason = pcall(storage.load, account)
  if not ok then
    return failed("load", record)
  elseif record == nil then
    if reason ~= nil then
      return failed("load", reason)
    end
    return "none"
  elseif type(record) ~= "table" then
    return failed("load", "it must return a record (a table) or nil, not a " .. type(record))
  end
  local text, message = json.encode(record)
  if not text then
    return failed("load", "what it returned is no record: " .. message, record)
  end
  return "did", text
end

function steps.save(storage, account, text)
  local record = json.decode(text)
  local ok, saved, reason = pcall(storage.save, account, record)
  if not ok then
    return failed("save", saved, json.decode(text))
  elseif saved == false or reason ~= nil then
    return failed("save", reason or "it returned false", json.decode(text))
  end
  return "did"
end

function steps.lock(storage, account)
  if not storage.lock then
    return "did"
  end
  local ok, locked, reason = pcall(storage.lock, account)
  if not ok then
    return failed("lock", locked)
  elseif reason ~= nil then
    return failed("lock", reason)
  end
  return locked == false and "busy" or "did"
end

-- There is nothing to be done about an unlock that fails: whoever comes next
-- finds the record as it was saved.
function steps.unlock(storage, account)
  if storage.unlock then
    pcall(storage.unlock, account)
  end
  return "did"
end

function steps.post(_, _, _, flight)
  flight:post()
  return "did"
end

local function sleep_of(storage)
  return storage.sleep or core.sleep
end

function steps.wait(storage, _, seconds)
  local ok = pcall(sleep_of(storage), seconds)
  if not ok then
    core.sleep(seconds)
  end
  return "did"
end

--- A function that gets a token by way of this storage.
---@param storage LucidStorage
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
function M.over(storage)
  return function(client, account, refresh)
    local flight, token, message, code = client:flight(account, refresh)
    if not flight then
      return token, message, code
    end
    account = account or "default"
    local step, argument = flight:next()
    while step ~= "done" do
      step, argument = flight:next(steps[step](storage, account, argument, flight))
    end
    return flight:finish()
  end
end

return M
