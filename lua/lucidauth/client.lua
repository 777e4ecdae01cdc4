--- A client: the C core that keeps the tokens, the driver that carries its
--- refreshes out, and the events on the way.

local core = require "lucidauth.core"

local setmetatable = setmetatable
local is_luajit = rawget(_G, "jit") ~= nil

---@class LucidStatus
---@field state "ready"|"expired"|"failing"|"empty"
---@field expires_in number seconds the token in use has left; 0: none
---@field unsaved boolean the newest tokens are in this process's memory alone
---@field last_refresh? number epoch seconds of this process's last refresh
---@field last_error? { code: LucidCode, message: string }
---@field retry_in? number seconds until the server is asked again

---@alias LucidEventName
---| "refreshed" a refresh brought new tokens
---| "adopted" another process's newer token is in use now
---| "refresh_failed" a refresh failed; a token that still lives is served
---| "save_failed" new tokens are in this process's memory alone
---| "saved" and now they are saved
---| "recovered" a refresh that another process left unfinished is settled
---| "rejected" the API did not accept the token in use
---| "lost" a rotation is lost: a new login is needed
---| "repaired" the token file could be read by others; its mode is mended

---@class LucidEvent
---@field name LucidEventName
---@field account string
---@field code? LucidCode of a failure
---@field message? string of a failure

---@class LucidClient
---@field token fun(self: LucidClient, account?: string): string?, string?, LucidCode?
local Client = {}
Client.__index = Client

local M = { version = core.version, hot = core.hot }

-- A handler that fails must not cost its caller a token.
local function report(on_event, event)
  local ok, message = pcall(on_event, event)
  if not ok then
    io.stderr:write("lucidauth: on_event failed: ", tostring(message), "\n")
  end
end

local function deliver(self)
  local handle = self.core
  local name, account, code, message = handle:event()
  while name do
    if self.on_event then
      report(self.on_event, {
        name = name,
        account = account,
        code = code,
        message = code and message or nil,
      })
    end
    name, account, code, message = handle:event()
  end
end

local function fetch(self, account, refresh)
  if self.drive then
    return self.drive(self.core, account, refresh)
  end
  if refresh then
    return self.core:refresh(account)
  end
  return self.core:token(account)
end

local function obtain(self, account, refresh)
  local token, message, code = fetch(self, account, refresh)
  deliver(self)
  if token then
    return token
  end
  return nil, message, code
end

local function check_account(account, level)
  if account ~= nil and (type(account) ~= "string" or account == "") then
    error("account must be a string that is not empty", level + 1)
  end
end

-- The second value tells the hot path whose token it may hand out from now
-- on; the accounts of a several-account storage take the slow way.
function Client:slow_token(account)
  check_account(account, 2)
  local token, message, code = obtain(self, account, false)
  if not token then
    return nil, message, code
  end
  if account == nil and not self.drive then
    return token, self.core
  end
  return token
end

-- Without this, the hot path's second value would reach the caller.
local function token_only(self, account)
  local token, message, code = self:slow_token(account)
  if token then
    return token
  end
  return nil, message, code
end

function Client:authorization(account)
  local token, message, code = self:token(account)
  if not token then
    return nil, message, code
  end
  return "Bearer " .. token
end

function Client:refresh(account)
  check_account(account, 2)
  return obtain(self, account, true)
end

function Client:reject(token, account)
  check_account(account, 2)
  if type(token) ~= "string" then
    error("reject takes the token that the API did not accept", 2)
  end
  self.core:reject(account, token)
  deliver(self)
  return true
end

function Client:status(account)
  check_account(account, 2)
  return self.core:status(account)
end

function Client:close()
  self.core:close()
  deliver(self)
  return true
end

local function adorn(handle, settings)
  local self = setmetatable({ core = handle }, Client)
  if settings then
    self.on_event = settings.on_event
    if settings.functions then
      self.drive = require("lucidauth.drive").over(settings.functions)
      self.may_yield = is_luajit
    end
  end
  if self.drive then
    self.token = token_only
  else
    self.token = core.hot(self.slow_token, true)
  end
  return self
end

--- A client with everything from the environment.
---@return LucidClient? client
---@return string? message
---@return LucidCode? code
function M.new()
  local handle, message, code = core.new({})
  if not handle then
    return nil, message, code
  end
  return adorn(handle)
end

--- A client with options; raises at `level` when they cannot be used.
---@param options LucidOptions
---@param level integer as of error(), seen from the caller
---@return LucidClient
function M.configured(options, level)
  local settings = require("lucidauth.options").check(options, level + 1)
  local handle, message = core.new(settings.core)
  if not handle then
    error(message, level + 1)
  end
  return adorn(handle, settings)
end

return M
