--- lucidauth keeps OAuth2 tokens for the Lucid API.
---
---     local lucid = require "lucidauth"
---     local token = assert(lucid.token())
---
--- A token that is good in its file is brought in C. All the rest is in
--- lucidauth/module.lua, which is loaded when it is asked for: to compile it takes
--- longer than to bring the token, and many a process wants no more.

local core = require "lucidauth.core"

---@class lucidauth
---@field _VERSION string the module's version
local lucid = { _VERSION = core.version }

local token, authorization = core.first(lucid, function(...)
  return require("lucidauth.module").complete(...)
end)

--- An access token that works, refreshed first if it must be. A token that
--- still lives is served while a refresh fails.
---@type fun(account?: string): string?, string?, LucidCode?
lucid.token = token

--- The value of the `Authorization` header: "Bearer " and the token.
---@type fun(account?: string): string?, string?, LucidCode?
lucid.authorization = authorization

-- The workers' user may not be able to read the files that the master reads.
if package.loaded.ngx then
  assert(lucid.new)
end

return lucid
