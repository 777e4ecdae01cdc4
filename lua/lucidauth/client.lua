--- A client: the C core that keeps the tokens, the driver that carries its
--- refreshes out, and the events on the way.

local core = require "lucidauth.core"

local setmetatable = setmetatable
local is_luajit = rawget(_G, "jit") ~= nil
-- nginx's older Lua modules give each request a table of globals of its own
local in_nginx = package.loaded.ngx ~= nil

---@class LucidStatus
---@field state "ready"|"expired"|"failing"|"empty"
---@field expires_in number seconds the token in use has left; 0: none
---@field unsaved boolean the newest tokens are in this process's memory alone
---@field last_refresh? number epoch seconds of this process's last refresh
---@field last_error? { code: LucidCode, message: string }
---@field retry_in? number seconds until the server is asked again
---@field lifetime number seconds the token in use lives in all; 0: unknown
---@field refreshes integer by this client
---@field failures table<LucidCode, integer> refreshes that failed
---@field past { at: number, name: LucidEventName, code?: LucidCode }[] the last events
---@field shared boolean other processes' refreshes are seen at once; else within a second
---@field generation integer grows with every refresh by any process

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
---| "exposed" a group may write in the token file's folder
---| "stored" the program has stored the tokens of a login

---@class LucidEvent
---@field name LucidEventName
---@field account string
---@field code? LucidCode of a failure
---@field message? string of a failure or a warning

---@class LucidClient
---@field token fun(self: LucidClient, account?: string): string?, string?, LucidCode? that works
local Client = {}
Client.__index = Client

local M = {}

-- A handler that fails must not cost its caller a token.
local function report(self, event)
  local ok, message = pcall(self.on_event, event)
  if ok then
    return
  end
  local text = "lucidauth: on_event failed: " .. tostring(message)
  if self.host then
    self.host.complain(text)
  else
    io.stderr:write(text, "\n")
  end
end

local function deliver(self)
  local handle = self.core
  local name, account, code, message = handle:event()
  while name do
    if self.on_event then
      report(self, {
        name = name,
        account = account,
        code = code,
        message = message ~= "" and message or nil,
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

local function explain(self, message, code)
  return self.host and self.host.explain(message, code, self.default_path) or message
end

-- For metrics(). A name of which nothing is known may have been made up, and
-- there is no end of those. Of the others the last ones are known: from time to
-- time all become former ones, and the former ones are forgotten.
local function get_to_know(self, account, token, code)
  if account and (token or code ~= "config" and code ~= "not_ready") then
    if not self.accounts[account] then
      self.strangers = self.strangers - 1
    end
    if self.strangers < 0 then
      self.former, self.accounts = self.accounts, { default = true }
      self.strangers = self.most - 1
    end
    self.accounts[account] = true
  end
end

-- A coroutine that is thrown away while it waits is gone from `waiting` when
-- its memory is.
local function await(self, account, ask, wish)
  local mark = {}
  self.waiting[mark] = account or "default"
  local result, message, code = ask(self, account, wish)
  self.waiting[mark] = nil
  get_to_know(self, account, result, code)
  deliver(self)
  if result then
    return result
  end
  return nil, explain(self, message, code), code
end

local function obtain(self, account, refresh)
  return await(self, account, fetch, refresh)
end

local with_a_colon = "write client:%s(...), with a colon: client.%s(...) leaves the client out"
local with_a_dot = "write lucid.%s(...), with a dot: lucid:%s(...) passes the module as an argument"

local function check_self(self, name, level)
  if type(self) ~= "table" or not self.core then
    error(with_a_colon:format(name, name), level + 1)
  end
end

--- Misuse of a function of the module: a colon for the dot.
---@param first any its first argument
---@param name string
---@param level integer as of error(), seen from the function
function M.check_dot(first, name, level)
  if first ~= nil and first == package.loaded.lucidauth then
    error(with_a_dot:format(name, name), level + 1)
  end
end

local function check_account(account, name, level)
  M.check_dot(account, name, level + 1)
  if account ~= nil and (type(account) ~= "string" or account == "") then
    error("account must be a string that is not empty", level + 1)
  elseif account and account:find("\0", 1, true) then
    error("account holds a NUL byte; take it out", level + 1)
  end
end

local function check_open(self, name, level)
  check_self(self, name, level + 1)
  if self.closed then
    error("this lucidauth client is closed", level + 1)
  end
end

-- The values behind the token tell the hot path whose it may hand out from now
-- on.
function Client:slow_token(account)
  -- called by the hot path, or by token_only
  check_open(self, "token", 3)
  check_account(account, "token", 3)
  local token, message, code = obtain(self, account, false)
  if not token then
    return nil, message, code
  elseif self.drive then
    return token
  end
  return token, self.core, account
end

-- The same, and so are its errors.
function Client:slow_authorization(account)
  check_open(self, "authorization", 3)
  check_account(account, "authorization", 3)
  return self:slow_token(account)
end

-- The further results are for the hot path, not for the caller.
local function token_only(self, account)
  check_self(self, "token", 2)
  local token, message, code = self:slow_token(account)
  if token then
    return token
  end
  return nil, message, code
end

local function look(self, account)
  local token, message, code = self.host.look(self.core, core.ticket(false), account)
  deliver(self)
  get_to_know(self, account, token, code)
  return token, message, code
end

-- LuaJIT cannot yield below a C function: the hot path, which is told of every
-- token, and the wait for one lie side by side in a Lua function.
local function yielding(self, name)
  local is_header = name == "authorization"
  local hot = core.hot(function(token, handle, account)
    if handle then
      return token, handle, account
    end
  end, is_header)
  local function wait(account)
    check_open(self, name, 3)
    check_account(account, name, 3)
    local token, message, code = look(self, account)
    if not token and code == "not_ready" then
      token, message, code = obtain(self, account, false)
    elseif not token then
      message = explain(self, message, code)
    end
    if token then
      return (hot(token, self.core, account))
    end
    return nil, message, code
  end
  local function inherited(account)
    local token, message, code = self.heir(account)
    if token then
      return is_header and "Bearer " .. token or token
    end
    return nil, message, code
  end
  return function(account)
    local token = hot(account)
    if token then
      return token
    end
    -- not a tail call: an error is to name the line of our caller
    local message, code
    token, message, code = (self.closed and self.heir and inherited or wait)(account)
    if token then
      return token
    end
    return nil, message, code
  end
end

local function authorization(self, account, level)
  check_open(self, "authorization", level + 1)
  check_account(account, "authorization", level + 1)
  local token, message, code = token_only(self, account)
  if not token then
    return nil, message, code
  end
  return "Bearer " .. token
end

--- The value of the `Authorization` header: "Bearer " and the token.
---@param account? string
---@return string? authorization
---@return string? message
---@return LucidCode? code
function Client:authorization(account)
  -- not a tail call: an error is to name the line of our caller
  local header, message, code = authorization(self, account, 2)
  if header then
    return header
  end
  return nil, message, code
end

--- A new access token now, even if the present one still lives.
---@param account? string
---@return string? token
---@return string? message
---@return LucidCode? code
function Client:refresh(account)
  check_open(self, "refresh", 2)
  check_account(account, "refresh", 2)
  return obtain(self, account, true)
end

local function store_now(self, account, login)
  if self.flights then
    return self.flights.store(self.core, account, login)
  elseif self.host then
    local _, message, code = self.host.refusal(true)
    if message then
      return nil, message, code
    end
    return self.host.store(self.core, account, login)
  end
  return self.core:store(account, login.answer, login.replace)
end

local function text_of_answer(answer, level)
  if type(answer) == "table" then
    return require("lucidauth.answer").encode(answer)
  elseif type(answer) ~= "string" then
    error("store takes a token answer (a table, or its JSON text) or a refresh token", level + 1)
  end
  return answer
end

local function check_store_options(options, level)
  if options ~= nil and type(options) ~= "table" then
    error("the options of store must be a table: { replace = true }", level + 1)
  end
  for name, value in pairs(options or {}) do
    if name ~= "replace" then
      error(("store has no option %q, only replace"):format(tostring(name)), level + 1)
    elseif type(value) ~= "boolean" then
      error("the option replace must be true or false", level + 1)
    end
  end
  return options and options.replace or false
end

local no_answer = "This table cannot be written as JSON: it is far too large or nested too deeply, "
  .. "or there is a function or another value or key in it that no token answer has. Nothing was "
  .. "changed. Give the token answer as the server sent it."

--- Store the tokens of a login. This starts an empty account, and takes the
--- place of a grant that is dead (refused, lost, expired without a refresh token,
--- or damaged, which is kept in the new record's field `damaged`). A grant that
--- lives is replaced only with `{ replace = true }`; else "config". A refresh
--- that is under way is waited for. The same answer may be stored twice.
---@param answer table|string a token answer, or its JSON text, or a refresh token alone
---@param account? string
---@param options? { replace?: boolean } without an account they may stand in its place
---@return true? stored
---@return string? message
---@return LucidCode? code "invalid_grant": its refresh token is spent already; "storage": keep it
function Client:store(answer, account, options)
  check_open(self, "store", 2)
  if type(account) == "table" and options == nil then
    account, options = nil, account
  end
  check_account(account, "store", 2)
  local replace = check_store_options(options, 2)
  local text = text_of_answer(answer, 2)
  if not text then
    return nil, no_answer, "config"
  end
  local login = { answer = text, replace = replace }
  local stored, message, code = await(self, account, store_now, login)
  if stored then
    return true
  end
  return nil, message, code
end

--- The API answered 401 to this very token: it is never handed out again, and
--- the next `token()` brings another. A token that is no longer in use, or a
--- second rejection, changes nothing.
---@param token string the token that the API did not accept, or the header's "Bearer ..."
---@param account? string
---@return true? rejected
---@return string? message
---@return LucidCode? code
function Client:reject(token, account)
  check_open(self, "reject", 2)
  check_account(account, "reject", 2)
  if type(token) ~= "string" then
    error("reject takes the token that the API did not accept", 2)
  end
  local rejected, message, code = self.core:reject(account, token)
  deliver(self)
  if rejected then
    return true
  end
  return nil, explain(self, message, code), code
end

--- How an account stands; there is no secret in it.
---@param account? string
---@return LucidStatus? status
---@return string? message
---@return LucidCode? code
function Client:status(account)
  check_open(self, "status", 2)
  check_account(account, "status", 2)
  return self.core:status(account)
end

local function close_now(self)
  local saved, message, code = true, nil, nil
  if self.flights then
    saved, message, code = self.flights.close(self.core)
  end
  if saved then
    self.core:close()
    self.closed = true
  end
  deliver(self)
  if saved then
    return true
  end
  return nil, message, code
end

-- A refresh that only waits to try again is broken off.
local function is_idle(self)
  local rests = not self.flights or self.flights.rests()
  return self.core:leave() and rests
end

--- Ends the client and wipes its secrets. A refresh that is under way is waited
--- for: in an event loop by yielding; where that is not possible it goes on
--- while this returns inside nginx, and elsewhere this blocks. As long as a
--- storage in Lua does not take the newest tokens, the client stays open, and
--- they stay in its memory.
---@return true? closed
---@return string? message
---@return LucidCode? code
function Client:close()
  check_self(self, "close", 2)
  if not self.host then
    return close_now(self)
  end
  local leaving = self.host.leaving
  leaving[self.core] = true
  return self.host.close_when_idle(function()
    return is_idle(self)
  end, function()
    return next(self.waiting) ~= nil
  end, function()
    local closed, message, code = close_now(self)
    leaving[self.core] = closed
    return closed, message, code
  end)
end

local function merge(one, other)
  local all = {}
  for _, names in ipairs { one, other } do
    for name in pairs(names) do
      all[name] = true
    end
  end
  return all
end

--- The numbers of status() for every account that is in use in this process, as
--- Prometheus text.
---@param prefix? string of the metrics' names, "lucidauth_"
---@return string
function Client:metrics(prefix)
  check_open(self, "metrics", 2)
  if prefix ~= nil and (type(prefix) ~= "string" or not prefix:find("^[%a_:][%w_:]*$")) then
    error("prefix must be a string that can begin a metric's name", 2)
  end
  local waiters, accounts = {}, {}
  for _, name in pairs(self.waiting) do
    waiters[name] = (waiters[name] or 0) + 1
  end
  for name in pairs(merge(self.former, self.accounts)) do
    local status = self.core:status(name ~= "default" and name or nil)
    if status then
      accounts[#accounts + 1] = { name = name, status = status, waiters = waiters[name] or 0 }
    end
  end
  table.sort(accounts, function(a, b)
    return a.name < b.name
  end)
  return require("lucidauth.metrics").render(prefix or "lucidauth_", accounts)
end

local default_patience, default_timeout, default_most = 2, 30, 10000

local function set_driver(self, functions, options)
  local timeout = options.timeout or default_timeout
  if self.host and functions then
    local patience = options.refresh_wait or default_patience
    local apart = require("lucidauth.drive").apart
    self.drive, self.flights = apart(functions, timeout, self.host, patience)
  elseif functions then
    self.drive, self.flights = require("lucidauth.drive").over(functions, timeout)
  elseif self.host then
    self.drive = self.host.obtain
  end
end

local function set_token(self, functions)
  if functions then
    self.token = token_only
  elseif self.host then
    for _, name in ipairs { "token", "authorization" } do
      local ask = yielding(self, name)
      self["bare_" .. name] = ask
      self[name] = function(client, account)
        check_self(client, name, 2)
        return ask(account)
      end
    end
  else
    self.token = core.hot(self.slow_token, false, self, self.core)
    self.authorization = core.hot(self.slow_authorization, true, self, self.core)
  end
end

-- nginx knows how to wait by itself.
local function host_of(options, settings)
  if in_nginx and options.background then
    return require("lucidauth.nginx")
  elseif settings and settings.sleep and not in_nginx then
    return require("lucidauth.loop").by(settings.sleep)
  end
end

local function adorn(handle, options, settings)
  local self = setmetatable({ core = handle, accounts = { default = true } }, Client)
  local functions = settings and settings.functions
  self.waiting = setmetatable({}, { __mode = "k" })
  self.former = {}
  self.most = math.ceil((options.max_accounts or default_most) / 2)
  self.strangers = self.most
  self.default_path = not options.path and (options.storage or "file") == "file"
  self.host = host_of(options, settings)
  self.on_event = settings and settings.on_event or self.host and self.host.report
  set_driver(self, functions, options)
  set_token(self, functions)
  -- the module's own functions, where C must not call them
  if functions and is_luajit then
    self.bare_token = function(account)
      return token_only(self, account)
    end
    self.bare_authorization = function(account)
      return authorization(self, account, 1)
    end
  end
  return self
end

local function with_defaults(options, sleep)
  if options.background == nil then
    options.background = in_nginx or sleep ~= nil
  end
  return options
end

--- A client with everything from the environment.
---@param handle? userdata its core, if there is one already
---@return LucidClient? client
---@return string? message
---@return LucidCode? code
function M.new(handle)
  local message, code
  local options = with_defaults {}
  if not handle then
    handle, message, code = core.new(options)
  end
  if not handle then
    return nil, message, code
  end
  return adorn(handle, options)
end

--- A client with options; raises at `level` when they cannot be used.
---@param options LucidOptions
---@param level integer as of error(), seen from the caller
---@return LucidClient
function M.configured(options, level)
  local settings = require("lucidauth.options").check(options, level + 1)
  local handle, message = core.new(with_defaults(settings.core, settings.sleep))
  if not handle then
    error(message, level + 1)
  end
  return adorn(handle, settings.core, settings)
end

return M
