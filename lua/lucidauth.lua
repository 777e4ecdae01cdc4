--- lucidauth keeps OAuth2 tokens for the Lucid API.
---
---     local lucid = require "lucidauth"
---     local token = assert(lucid.token())
---
--- This file brings a good token from its file and knows nothing else. All the
--- rest is in lucidauth/module.lua, which is loaded when it is asked for: to
--- compile it takes longer than to bring the token, and many a process wants no
--- more.

local core = require "lucidauth.core"

---@class lucidauth
---@field _VERSION string the module's version
local lucid = { _VERSION = core.version }

-- what calls a method of the module's own client, once the rest is loaded
local call
-- the core of the client to come, while nothing but token() was called
local handle

-- `lucid.token` and `lucid.authorization`: functions in C, which ask Lua where
-- there is no token at hand
local token, authorization

local function complete()
  local module = require "lucidauth.module"
  call = module.complete(lucid, token, authorization, handle)
  setmetatable(lucid, nil)
end

-- As LucidClient:slow_token; without options there is nobody to hear events.
local function plain_token()
  local message, code
  if not handle then
    handle, message, code = core.new({ background = false })
    if not handle then
      return nil, message, code
    end
  end
  local good
  good, message, code = handle:token()
  repeat
    local event = handle:event()
  until not event
  if good then
    return good, handle
  end
  return nil, message, code
end

local function slow(name)
  return function(account)
    if not call then
      if account == nil then
        return plain_token()
      end
      complete()
    end
    require("lucidauth.client").check_dot(account, name, 3)
    return call("slow_" .. name, account)
  end
end

token = core.hot(slow("token"), false)
authorization = core.hot(slow("authorization"), true)

--- An access token that works, refreshed first if it must be. A token that
--- still lives is served while a refresh fails.
---@type fun(account?: string): string?, string?, LucidCode?
lucid.token = token

--- The value of the `Authorization` header: "Bearer " and the token.
---@type fun(account?: string): string?, string?, LucidCode?
lucid.authorization = authorization

setmetatable(lucid, {
  __index = function(_, name)
    complete()
    return lucid[name]
  end,
  __pairs = function()
    complete()
    return next, lucid
  end,
})

-- The workers' user may not be able to read what the master's can.
if package.loaded.ngx then
  complete()
end

return lucid
