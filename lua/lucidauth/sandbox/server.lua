--- The sandbox's server: it listens, and has the methods that tests steer it
--- with.

local socket = require("socket")

local codec = require("lucidauth.sandbox.codec")
local connection = require("lucidauth.sandbox.connection")
local faults = require("lucidauth.sandbox.faults")
local grants = require("lucidauth.sandbox.grants")
local log = require("lucidauth.sandbox.log")
local loop = require("lucidauth.sandbox.loop")
local settings = require("lucidauth.sandbox.settings")
local copy = require("lucidauth.tables").copy

local server = {}

local BACKLOG = 1024

---@class lucidauth.sandbox.Server
---@field url string
---@field port integer
---@field clock fun(): number the clock of the tokens' lifetimes; may be replaced
local Server = {}
Server.__index = Server

-- One client a round, after all others of that round: so a client that left before
-- this one came has been noticed, and a fast client cannot starve the others.
local function accept_all(self)
  while true do
    self.reactor:wait_readable(self.listener)
    self.reactor:sleep(0)
    local client = self.listener:accept()
    if client and client:getfd() < loop.DESCRIPTOR_LIMIT then
      self.reactor:spawn(connection.serve, self, client)
    elseif client then
      client:close()
    else
      -- No descriptor is left: somebody has to go first.
      self.reactor:sleep(0.05)
    end
  end
end

local function listen(port)
  local listener = assert(socket.tcp4())
  listener:setoption("reuseaddr", true)
  local ok, message = listener:bind("127.0.0.1", port)
  if ok then
    ok, message = listener:listen(BACKLOG)
  end
  if not ok then
    listener:close()
    return nil, message
  end
  listener:settimeout(0)
  return listener
end

local function report(message)
  io.stderr:write("lucid sandbox: ", message, "\n")
end

--- Starts a sandbox that listens; `step` or `loop` makes it answer.
--- An unknown setting or a bad value raises an error.
---@param options lucidauth.sandbox.Settings|nil
---@return lucidauth.sandbox.Server|nil server
---@return string|nil message why it cannot listen
function server.new(options)
  local changes, values = copy(options or {}), settings.defaults()
  local clock = changes.clock or socket.gettime
  changes.clock = nil
  local ok, message = settings.apply(values, changes, false)
  if not ok then
    error(message, 2)
  end
  values.refresh_token = values.refresh_token
    or "oauth2-r-" .. codec.random_hex(24)
  local listener, reason = listen(values.port)
  if not listener then
    return nil, "the sandbox cannot listen on port " .. values.port .. ": "
      .. reason
  end
  local _, port = listener:getsockname()
  local self = setmetatable({
    clock = clock,
    start = values,
    listener = listener,
    port = tonumber(port),
    url = "http://127.0.0.1:" .. port,
    reactor = loop.new(report),
    open = {},
    accepted = 0,
  }, Server)
  self:reset()
  self.reactor:spawn(accept_all, self)
  return self
end

--- Makes everything as it was at the start: grants, settings, faults, log.
function Server:reset()
  local held = self.queue and self.queue.held or {}
  self.values = copy(self.start)
  self.journal = log.new()
  self.queue = faults.new()
  self.unanswered = setmetatable({}, { __mode = "k" })
  self.store = grants.new({
    clock = function()
      return self.clock()
    end,
    random = codec.random_hex,
    settings = self.values,
  })
  self.store:open({
    account = "default",
    refresh_token = self.values.refresh_token,
  })
  for number = 1, self.values.refresh_tokens do
    self.store:open({ account = "account-" .. number })
  end
  for _, account in ipairs(self.values.accounts) do
    self.store:open(
      type(account) == "table" and account or { account = account }
    )
  end
  self.reactor:release(held)
end

--- Waits for the next thing to do, and does it.
---@param timeout number|nil seconds to wait at most
function Server:step(timeout)
  self.reactor:step(timeout)
end

--- Answers until `stop` is called.
function Server:loop()
  repeat
  until not self.reactor:step()
end

--- Closes every connection and stops listening.
function Server:stop()
  for one in pairs(self.open) do
    one.stream:close()
  end
  self.open = {}
  self.listener:close()
  self.reactor:clear()
end

--- The requests and their outcomes.
---@param limit integer|nil how many entries at most
---@return { counts: table<string, integer>, entries: table[] }
function Server:log(limit)
  return self.journal:report(limit)
end

--- The present settings, changed first if changes are given.
---@param changes table|nil
---@return table|nil settings without secrets
---@return string|nil message why the changes are refused
function Server:settings(changes)
  local ok, message = settings.apply(self.values, changes or {}, true)
  if not ok then
    return nil, message
  end
  return settings.describe(self.values)
end

--- The faults that wait, more added first if any are given.
---@param list table[]|nil see lucidauth/sandbox/faults.lua
---@return table[]|nil waiting
---@return string|nil message why the list is refused
function Server:faults(list)
  local ok, message = self.queue:add(list or {})
  if not ok then
    return nil, message
  end
  local waiting = codec.array({})
  for place, fault in ipairs(self.queue.list) do
    waiting[place] = copy(fault)
  end
  return waiting
end

--- Drops all faults that wait, and those that are always there; answers that
--- were held go out.
function Server:clear_faults()
  self.queue:clear()
  self.reactor:release(self.queue.held)
end

--- Every grant with its present tokens, for tests to compare with.
---@return table[]
function Server:grants()
  local list = codec.array({})
  for place, grant in ipairs(self.store.list) do
    list[place] = self.store:describe(grant)
  end
  return list
end

local GRANT_FIELDS = { account = true, kind = true, scope = true }

--- A further grant, as if its user had just logged in.
---@param request { account?: string, kind?: string, scope?: string }
---@return table|nil grant with its tokens
---@return string|nil message
function Server:open_grant(request)
  for name, value in pairs(request) do
    if not GRANT_FIELDS[name] or type(value) ~= "string" then
      return nil, "a grant has account, kind and scope, each a text"
    end
  end
  return self.store:describe(self.store:open(request))
end

--- Makes access tokens expire now.
---@param account string|nil of this account only
---@return integer count
function Server:expire(account)
  return self.store:expire(account)
end

--- Revokes grants, as an administrator would.
---@param account string|nil of this account only
---@return integer count
function Server:revoke_all(account)
  return self.store:revoke_all(account)
end

return server
