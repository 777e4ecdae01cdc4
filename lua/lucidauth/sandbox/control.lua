--- The endpoints under /sandbox/ , by which tests steer the sandbox. All speak
--- JSON; requests to them are neither logged nor counted.
--
--   GET    /sandbox/log?last=N   counts and the N latest entries
--   GET    /sandbox/settings     the settings, without secrets
--   POST   /sandbox/settings     { name: value, ... } changes them
--   GET    /sandbox/faults       the faults that wait
--   POST   /sandbox/faults       a fault or a list of them, see faults.lua
--   DELETE /sandbox/faults       forgets those that wait; held answers go on
--   GET    /sandbox/grants       every grant with its present tokens
--   POST   /sandbox/grants       { account, kind, scope } opens one more
--   POST   /sandbox/expire       { account }: access tokens expire now
--   POST   /sandbox/revoke_all   { account }: grants are revoked
--   POST   /sandbox/reset        everything as it was at the start
--
-- Without `account`, expire and revoke_all concern every grant.

local codec = require("lucidauth.sandbox.codec")

local control = {}

local routes = {}

local function done(value)
  return { status = 200, json = value }
end

local function failed(message)
  return { status = 400, json = { error = message } }
end

routes["GET /sandbox/log"] = function(server, _, request)
  return done(server:log(tonumber(request.query:match("last=(%d+)"))))
end

routes["GET /sandbox/settings"] = function(server)
  return done(server:settings())
end

routes["POST /sandbox/settings"] = function(server, changes)
  local values, message = server:settings(changes)
  return values and done(values) or failed(message)
end

routes["GET /sandbox/faults"] = function(server)
  return done(server:faults())
end

routes["POST /sandbox/faults"] = function(server, list)
  local is_single = list.kind ~= nil
  local waiting, message = server:faults(is_single and { list } or list)
  return waiting and done(waiting) or failed(message)
end

routes["DELETE /sandbox/faults"] = function(server)
  server:clear_faults()
  return done(server:faults())
end

routes["GET /sandbox/grants"] = function(server)
  return done(server:grants())
end

routes["POST /sandbox/grants"] = function(server, request)
  local grant, message = server:open_grant(request)
  return grant and done(grant) or failed(message)
end

routes["POST /sandbox/expire"] = function(server, fields)
  return done({ expired = server:expire(fields.account) })
end

routes["POST /sandbox/revoke_all"] = function(server, fields)
  return done({ revoked = server:revoke_all(fields.account) })
end

routes["POST /sandbox/reset"] = function(server)
  server:reset()
  return done({})
end

--- Whether a path is one of these.
---@param path string
---@return boolean
function control.owns(path)
  return path:sub(1, 9) == "/sandbox/"
end

---@param server table
---@param request table
---@return table answer
function control.answer(server, request)
  local route = routes[request.method .. " " .. request.path]
  if not route then
    return { status = 404, json = { error = "the sandbox has no such control" } }
  end
  local fields = {}
  if request.body ~= "" then
    fields = codec.decode_json(request.body)
    if type(fields) ~= "table" then
      return failed("the body is not a JSON object")
    end
  end
  return route(server, fields, request)
end

return control
