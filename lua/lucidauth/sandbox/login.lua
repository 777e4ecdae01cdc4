--- The authorization endpoints, to which a browser is sent.

local codec = require("lucidauth.sandbox.codec")
local grants = require("lucidauth.sandbox.grants")
local pages = require("lucidauth.sandbox.pages")

local login = {}

local LOOPBACK = { ["127.0.0.1"] = true, localhost = true, ["[::1]"] = true }

local function is_loopback(uri)
  local authority = uri:match("^http://([^/?]+)")
  if not authority then
    return false
  end
  return LOOPBACK[authority:match("^(.-):%d+$") or authority] == true
end

local function is_allowed(uri, allowed)
  if not uri or uri:find("[%c%s#]") then
    return false
  elseif #allowed == 0 then
    return is_loopback(uri)
  end
  for _, one in ipairs(allowed) do
    if one == uri then
      return true
    end
  end
  return false
end

-- Nothing is sent to an address that cannot be trusted: these are shown.
local function find_fatal(fields, settings)
  if fields.client_id ~= settings.client_id then
    return "The client_id is not known here."
  elseif not is_allowed(fields.redirect_uri, settings.redirect_uris) then
    return "The redirect_uri is not one of this client's."
  end
end

-- All else is told to the client.
local function find_error(fields)
  local challenge = fields.code_challenge
  local method = fields.code_challenge_method
  if fields.response_type and fields.response_type ~= "code" then
    return "unsupported_response_type", "only response_type=code is known"
  elseif not (fields.scope or ""):find("%S") then
    return "invalid_scope", "the scope is missing"
  elseif fields.scope:find('["\\%c\127-\255]') then
    return "invalid_scope", "the scope holds characters that it may not hold"
  elseif method and method ~= "S256" and method ~= "plain" then
    return "invalid_request", "the code_challenge_method is not known"
  elseif method and not challenge then
    return "invalid_request", "the code_challenge is missing"
  elseif challenge and not grants.is_pkce(challenge) then
    return "invalid_request", "the code_challenge is malformed"
  end
end

local function redirect(fields, result)
  result.state = fields.state
  local uri = fields.redirect_uri
  local separator = uri:find("?", 1, true) and "&" or "?"
  return {
    status = 303,
    headers = {
      Location = uri .. separator .. codec.encode_form(result),
      ["Cache-Control"] = "no-store",
    },
  }
end

local function allow(server, fields, kind, entry)
  server.journal:count("authorizations")
  local code = server.store:authorize({
    kind = kind,
    scope = fields.scope,
    redirect_uri = fields.redirect_uri,
    challenge = fields.code_challenge,
    method = fields.code_challenge and fields.code_challenge_method or "plain",
  })
  entry.outcome, entry.token = "allowed", server.store:identify(code)
  return redirect(fields, { code = code })
end

local function decide(server, fields, kind, decision, entry)
  if decision == "allow" then
    return allow(server, fields, kind, entry)
  end
  entry.outcome = "denied"
  return redirect(fields, {
    error = "access_denied",
    error_description = "the user said no",
  })
end

--- Answers a GET (the page) or a POST (the user's decision).
---@param server table
---@param request table
---@param kind "user"|"account"
---@param entry table of the log
---@return table answer
function login.answer(server, request, kind, entry)
  local settings = server.values
  local is_post = request.method == "POST"
  local text = is_post and request.body or request.query
  local fields, message = codec.decode_form(text)
  entry.outcome = "invalid_request"
  message = message or find_fatal(fields, settings)
  if message then
    return pages.problem(message)
  end
  local code, description = find_error(fields)
  if code then
    entry.outcome = code
    return redirect(fields, { error = code, error_description = description })
  end
  if is_post then
    return decide(server, fields, kind, fields.decision, entry)
  elseif settings.consent ~= "ask" then
    return decide(server, fields, kind, settings.consent, entry)
  end
  entry.outcome, fields.decision = "asked", nil
  return pages.consent(request.path, fields, kind)
end

return login
