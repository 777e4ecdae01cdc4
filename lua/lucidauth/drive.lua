--- Carries refreshes out over a storage made of Lua functions. The core
--- decides each step; these functions may yield, and may fail.

local cjson = require "cjson.safe"
local core = require "lucidauth.core"

local json = cjson.new()
-- Expiries fit into the default's fourteen digits, other numbers may not. The
-- original lua-cjson raises when it is asked for more.
pcall(json.encode_number_precision, 16)
-- A server may send a number that no double holds; the record stays readable.
json.encode_invalid_numbers("null")

local M = {}

local longest = 300

-- Whatever is raised, even an object whose text cannot be had.
local function text_of(reason)
  local ok, text = pcall(tostring, reason)
  return ok and text or type(reason)
end

-- What a storage says of its failure may quote the record: the one in hand, or
-- one that could not be read, whose tokens nobody knows.
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

local steps = {}

function steps.load(storage, account)
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

function steps.post(_, _, _, flight, host)
  if host then
    host.post(flight)
  else
    flight:post()
  end
  return "did"
end

local function sleep_of(storage, host)
  return storage.sleep or (host and host.sleep) or core.sleep
end

function steps.wait(storage, _, seconds, _, host)
  local ok = pcall(sleep_of(storage, host), seconds)
  if not ok then
    core.sleep(seconds)
  end
  return "did"
end

local function carry_out(flight, storage, account, host)
  local step, argument = flight:next()
  while step ~= "done" do
    step, argument = flight:next(steps[step](storage, account, argument, flight, host))
  end
  return flight:finish()
end

--- A function that gets a token by way of this storage.
---@param storage LucidStorage
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
function M.over(storage)
  return function(handle, account, refresh)
    local flight, token, message, code = handle:flight(account, refresh)
    if not flight then
      return token, message, code
    end
    return carry_out(flight, storage, account or "default")
  end
end

-- Another coroutine's flight is waited for.
local function begin(host, handle, account, refresh)
  local flight, token, message, code
  local function try()
    flight, token, message, code = handle:flight(account, refresh)
    return flight or token or code ~= "not_ready"
  end
  if not try() and host.can_yield() then
    host.wait_for(try)
  end
  return flight, token, message, code
end

--- The same inside an event loop: the flight is carried out apart from its
--- caller, who may be cut off, and a token that still lives is handed out after
--- `patience` seconds, or at once to a caller that may not wait.
---@param storage LucidStorage
---@param host table lucidauth.nginx
---@param patience number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
function M.apart(storage, host, patience)
  return function(handle, account, refresh)
    local _, refusal, why = host.refusal()
    if refusal then
      return nil, refusal, why
    end
    local flight, token, message, code = begin(host, handle, account, refresh)
    if not flight then
      return token, message, code
    end
    local started
    started, token, message, code = host.apart(function()
      return carry_out(flight, storage, account or "default", host)
    end, function()
      -- the account's flight is in the air: this begins no other
      local _, living = handle:flight(account, false)
      return not refresh and living or nil
    end, patience)
    if started then
      return token, message, code
    end
    return flight:finish()
  end
end

return M
