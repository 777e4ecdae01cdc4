--- The answer of each endpoint. Every function takes the server, the request
--- and the log's entry for it, and returns an answer for http.format.

local codec = require("lucidauth.sandbox.codec")
local login = require("lucidauth.sandbox.login")

local endpoints = {}

local STATUS = { invalid_client = 403, server_error = 500, not_found = 404 }

-- RFC 6749, section 5.1: nothing of this may be cached.
local NO_STORE = { ["Cache-Control"] = "no-store", Pragma = "no-cache" }

local function oauth_error(code, description)
  return {
    status = STATUS[code] or 400,
    headers = NO_STORE,
    json = { error = code, error_description = description },
  }
end

local function ok(fields)
  return { status = 200, headers = NO_STORE, json = fields }
end

local function read_json(text)
  local fields = codec.decode_json(text)
  if type(fields) ~= "table" then
    return nil, "the body is not a JSON object"
  end
  for name, value in pairs(fields) do
    if type(value) ~= "string" then
      return nil, "the field " .. tostring(name) .. " is not a string"
    end
  end
  return fields
end

--- The fields of a request's body.
---@param request table
---@return table<string, string>|nil fields
---@return string|nil message
function endpoints.read_fields(request)
  local kind = (request.headers["content-type"] or ""):match("^[^;%s]*")
  if kind:lower() == "application/json" then
    return read_json(request.body)
  elseif kind:lower() == "application/x-www-form-urlencoded" then
    return codec.decode_form(request.body)
  end
  return nil, "the body must be application/json or a form"
end

local function read_basic(request)
  local header = request.headers.authorization or ""
  local encoded = header:match("^[Bb][Aa][Ss][Ii][Cc] +(%S+)$")
  local text = encoded and codec.decode_base64(encoded)
  local id, secret = (text or ""):match("^([^:]*):(.*)$")
  if id then
    return codec.unescape(id), codec.unescape(secret)
  end
end

local function authenticate(server, request, fields)
  local id, secret = read_basic(request)
  if id and fields.client_secret then
    return oauth_error("invalid_request",
      "the client authenticates in two ways at once")
  elseif not id then
    id, secret = fields.client_id, fields.client_secret
  end
  if not server.store:is_client(id, secret) then
    server.journal:count("invalid_clients")
    return oauth_error("invalid_client",
      "the client is not known, or its secret is wrong")
  end
end

-- The fields of an authenticated request, or the answer that refuses it.
local function admit(server, request, entry)
  local fields, message = endpoints.read_fields(request)
  local problem
  if not fields then
    problem = oauth_error("invalid_request", message)
  else
    problem = authenticate(server, request, fields)
  end
  if problem then
    entry.outcome = problem.json.error
    return nil, problem
  end
  return fields
end

-- As admit; without a token there is nothing to look for.
local function admit_token(server, request, entry)
  local fields, problem = admit(server, request, entry)
  if fields and not fields.token then
    entry.outcome = "invalid_request"
    return nil, oauth_error(entry.outcome, "token is missing")
  end
  return fields, problem
end

local function mark_of(server, text)
  return text and (server.store:identify(text))
end

-- A grant type gives an answer and its outcome, or nil and a refusal.
local grant_types = {}

function grant_types.refresh_token(server, fields)
  local journal = server.journal
  journal:count("refreshes")
  local answer, refusal = server.store:refresh(fields.refresh_token)
  if not answer then
    if refusal.outcome == "reuse" then
      journal:count("reuses")
    end
    return nil, refusal
  elseif not server.values.rotate then
    return answer, "refreshed"
  end
  journal:count("rotations")
  return answer, "rotated"
end

function grant_types.authorization_code(server, fields)
  local answer, refusal = server.store:exchange(fields)
  if not answer then
    return nil, refusal
  end
  server.journal:count("exchanges")
  return answer, "exchanged"
end

-- The field that each grant type needs.
local NEEDS = { refresh_token = "refresh_token", authorization_code = "code" }

local function grant(server, request, entry)
  local fields, problem = admit(server, request, entry)
  if not fields then
    return problem
  end
  local grant_type = fields.grant_type
  local need = NEEDS[grant_type]
  if not grant_type then
    entry.outcome = "invalid_request"
    return oauth_error(entry.outcome, "grant_type is missing")
  elseif not need then
    entry.outcome = "unsupported_grant_type"
    return oauth_error(entry.outcome, "this grant_type is not known here")
  elseif not fields[need] then
    entry.outcome = "invalid_request"
    return oauth_error(entry.outcome, need .. " is missing")
  end
  local answer, result = grant_types[grant_type](server, fields)
  if not answer then
    entry.outcome = result.outcome
    return oauth_error(result.error, result.description)
  end
  entry.outcome = result
  entry.issued = {
    access = mark_of(server, answer.access_token),
    refresh = mark_of(server, answer.refresh_token),
  }
  return ok(answer)
end

function endpoints.token(server, request, entry)
  local answer = grant(server, request, entry)
  if answer.status ~= 200 then
    server.journal:count("refusals")
  end
  return answer
end

function endpoints.introspect(server, request, entry)
  if not server.values.introspection then
    entry.outcome = "not_found"
    return oauth_error("not_found", "there is no introspection here")
  end
  server.journal:count("introspections")
  local fields, problem = admit_token(server, request, entry)
  if not fields then
    return problem
  end
  local answer = server.store:introspect(fields.token)
  entry.outcome = answer.active and "active" or "inactive"
  return ok(answer)
end

function endpoints.revoke(server, request, entry)
  server.journal:count("revocations")
  local fields, problem = admit_token(server, request, entry)
  if not fields then
    return problem
  end
  local ended = server.store:revoke(fields.token)
  entry.outcome = ended and "revoked" or "ignored"
  return ok({})
end

function endpoints.authorize(server, request, entry)
  return login.answer(server, request, "user", entry)
end

function endpoints.authorize_account(server, request, entry)
  return login.answer(server, request, "account", entry)
end

--- RFC 8414.
function endpoints.metadata(server)
  local base = server.values.public_url or server.url
  local list = codec.array
  local methods = list({ "client_secret_post", "client_secret_basic" })
  return ok({
    issuer = base,
    authorization_endpoint = base .. "/oauth2/authorize",
    token_endpoint = base .. "/oauth2/token",
    revocation_endpoint = base .. "/oauth2/token/revoke",
    introspection_endpoint = server.values.introspection
      and base .. "/oauth2/token/introspect" or nil,
    response_types_supported = list({ "code" }),
    grant_types_supported = list({ "authorization_code", "refresh_token" }),
    code_challenge_methods_supported = list({ "S256", "plain" }),
    token_endpoint_auth_methods_supported = methods,
  })
end

local function api_error(status, code, message, headers)
  return {
    status = status,
    headers = headers,
    json = {
      code = code,
      message = message,
      requestId = codec.random_hex(8),
    },
  }
end

local function profile(holder)
  return ok({
    id = holder.user_id,
    accountId = 1,
    email = "user" .. holder.user_id .. "@sandbox.invalid",
    fullName = "Sandbox User " .. holder.user_id,
  })
end

local function unauthorized(server, entry)
  server.journal:count("api_401")
  entry.outcome = "unauthorized"
  return api_error(401, "unauthorized",
    "the access token is missing, dead or unknown",
    { ["WWW-Authenticate"] = 'Bearer error="invalid_token"' })
end

--- Everything that is not one of the endpoints above is an API call.
function endpoints.api(server, request, entry)
  server.journal:count("api_requests")
  local header = request.headers.authorization or ""
  local text = header:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$")
  local holder = text and server.store:bearer(text)
  entry.token, entry.account = mark_of(server, text), holder and holder.account
  entry.query, entry.body = request.query, request.body:sub(1, 4096)
  local path, versioned = request.path:gsub("^/v1/", "/")
  if not holder then
    return unauthorized(server, entry)
  elseif versioned == 0 and request.headers["lucid-api-version"] ~= "1" then
    entry.outcome = "no_version"
    return api_error(400, "badRequest",
      "the header Lucid-Api-Version: 1 is missing")
  elseif path ~= "/users/me/profile" or request.method ~= "GET" then
    entry.outcome = "not_found"
    return api_error(404, "notFound", "the sandbox has no such resource")
  elseif not (" " .. holder.scope .. " "):find(" user.profile ", 1, true) then
    entry.outcome = "forbidden"
    return api_error(403, "forbidden", "the scope user.profile is needed")
  end
  entry.outcome = "ok"
  return profile(holder)
end

return endpoints
