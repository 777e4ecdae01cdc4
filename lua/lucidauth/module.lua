--- The module's functions, and its own client, which they work on: made by
--- `configure`, or at first use from the environment (LUCID_CLIENT_ID,
--- LUCID_CLIENT_SECRET, LUCID_REFRESH_TOKEN, LUCID_TOKEN_FILE,
--- LUCID_API_URL). `new` makes as many clients more as you like; each
--- function is a method of theirs too.
---
--- Misuse (an unknown option, a wrong type) raises. A failure at run time
--- returns `nil, message, code`; the codes are the `LucidCode` below.

local clients = require "lucidauth.client"
local check_dot = clients.check_dot

-- nginx's older Lua modules give each request a table of globals of its own
local in_nginx = package.loaded.ngx ~= nil

---@alias LucidCode
---| "config" a setting is missing or cannot be used
---| "invalid_client" the server does not accept client id and secret
---| "invalid_grant" the server refuses the refresh token: log in again
---| "lost_rotation" a refresh was spent and its answer never arrived
---| "network" the server could not be reached
---| "timeout" no answer in time
---| "rate_limited" the server said: later
---| "server_error" the server failed
---| "bad_response" the server's answer cannot be used
---| "storage" the token storage cannot be read or written
---| "locked" another process holds the account's lock for too long
---| "not_ready" no token yet, and this caller may not wait

---@class lucidauth
local lucid = {}

---@type LucidClient?
local default
-- the core of the client to come, while nothing but token() was called
local handle
-- functions in C, as long as nothing below them has to yield on LuaJIT
local fast_token, fast_authorization
-- `lucid.token` and `lucid.authorization` as long as no client has better ones
local first_token, first_authorization

-- Where a token may have to be waited for by yielding, a client brings a Lua
-- function of its own. A script that kept the function of a closed client gets the
-- present client's token.
local function adopt(own)
  if own and own.bare_token then
    own.heir = first_token
    lucid.token, lucid.authorization = own.bare_token, own.bare_authorization
  end
end

-- The environment may be set later in the program: a failure is not kept.
local function default_client()
  local message, code
  if not default then
    default, message, code = clients.new(handle)
    handle = nil
    adopt(default)
  end
  return default, message, code
end

local function call(method, ...)
  local own, message, code = default_client()
  if not own then
    return nil, message, code
  end
  return own[method](own, ...)
end

--- A new access token now, even if the present one still lives.
---@param account? string
---@return string? token
---@return string? message
---@return LucidCode? code
function lucid.refresh(account)
  check_dot(account, "refresh", 2)
  return call("refresh", account)
end

--- Store the tokens of a login. See `LucidClient.store`.
---@param answer table|string a token answer, or its JSON text, or a refresh token alone
---@param account? string
---@param options? { replace?: boolean } without an account they may stand in its place
---@return true? stored
---@return string? message
---@return LucidCode? code
function lucid.store(answer, account, options)
  check_dot(answer, "store", 2)
  return call("store", answer, account, options)
end

--- The API answered 401 to this very token: it is never handed out again, and
--- the next `token()` brings another. A token that is no longer in use, or a
--- second rejection, changes nothing.
---@param token string the token that the API did not accept, or the header's "Bearer ..."
---@param account? string
---@return true? rejected
---@return string? message
---@return LucidCode? code
function lucid.reject(token, account)
  check_dot(token, "reject", 2)
  return call("reject", token, account)
end

--- How an account stands; there is no secret in it.
---@param account? string
---@return LucidStatus? status
---@return string? message
---@return LucidCode? code
function lucid.status(account)
  check_dot(account, "status", 2)
  return call("status", account)
end

--- The numbers of status() for every account that is in use in this process, as
--- Prometheus text.
---@param prefix? string of the metrics' names, "lucidauth_"
---@return string? text
---@return string? message
---@return LucidCode? code
function lucid.metrics(prefix)
  check_dot(prefix, "metrics", 2)
  return call("metrics", prefix)
end

local function install(client)
  default = client
  lucid.token = client and fast_token or first_token
  lucid.authorization = client and fast_authorization or first_authorization
  adopt(client)
end

-- A client that cannot save its newest tokens stays, unless there is another one
-- by now: this may yield, and others may call meanwhile.
local function succeed(former, successor)
  install(successor)
  if not former then
    return true
  end
  local closed, message, code = former:close()
  if closed then
    return true
  elseif default == successor then
    install(former)
  end
  return nil, message, code
end

--- Close the module's own client and wipe its secrets. The next call makes a
--- new one from the environment.
---@return true? closed
---@return string? message
---@return LucidCode? code "storage": the newest tokens could not be saved, so it stays
function lucid.close(...)
  check_dot((...), "close", 2)
  return succeed((default or handle) and default_client(), nil)
end

--- Set up the module's own client. Options that are left out come from the
--- environment, or have their default. Raises when an option cannot be used.
---@param options LucidOptions
---@return true? configured
---@return string? message
---@return LucidCode? code "storage": the former client cannot save its tokens, so it stays
function lucid.configure(options)
  check_dot(options, "configure", 2)
  local own = clients.configured(options, 2)
  local former = (default or handle) and default_client()
  local succeeded, message, code = succeed(former, own)
  if succeeded then
    return true
  end
  own:close()
  return nil, message, code
end

--- A client of its own. Raises when an option cannot be used. Close it when you
--- are done with it: one that is only collected while its refresh is under way is
--- waited for on the spot, and inside nginx that holds the worker up.
---@param options? LucidOptions
---@return LucidClient
function lucid.new(options)
  check_dot(options, "new", 2)
  -- not a tail call: an error is to name the line of our caller
  local own = clients.configured(options or {}, 2)
  return own
end

local M = {}

--- Loads the parts that are otherwise loaded when they are needed.
function M.load_rest()
  for _, part in ipairs { "answer", "drive", "loop", "metrics", "options" } do
    require("lucidauth." .. part)
  end
end

-- The workers' user may not be able to read the files that the master reads.
if in_nginx then
  M.load_rest()
  require "lucidauth.nginx"
end

-- For `lucid.token` and `lucid.authorization` where C must not make the client.
local function yielding(name, fast)
  local bare = "bare_" .. name
  return function(account)
    check_dot(account, name, 2)
    local own, message, code = default_client()
    if not own then
      return nil, message, code
    end
    return (own[bare] or fast)(account)
  end
end

-- For `lucid.token` and `lucid.authorization`, where there is no token at hand.
local function slow(name)
  local method = "slow_" .. name
  return function(account)
    check_dot(account, name, 3)
    return call(method, account)
  end
end

--- Gives the module the rest of its functions.
---@param module lucidauth
---@param token function its own, in C
---@param authorization function
---@param started? userdata the core of its own client, if there is one already
---@return function slow_token the functions that the two ask from now on
---@return function slow_authorization
function M.complete(module, token, authorization, started)
  handle = started
  fast_token, fast_authorization = token, authorization
  first_token = in_nginx and yielding("token", token) or token
  first_authorization = in_nginx and yielding("authorization", authorization) or authorization
  for name, run in pairs(lucid) do
    module[name] = run
  end
  lucid = module
  if in_nginx then
    lucid.token, lucid.authorization = first_token, first_authorization
  end
  return slow("token"), slow("authorization")
end

return M
