--- The grants as Lucid's server keeps them: codes, tokens, rotation.
--- No socket, no clock and no randomness of its own: both come in as options.

local codec = require("lucidauth.sandbox.codec")

local grants = {}

local Grants = {}
Grants.__index = Grants

--- The scope of a grant that is there from the start.
grants.DEFAULT_SCOPE = "offline_access user.profile"

--- A request that was turned down.
---@class lucidauth.sandbox.Refusal
---@field outcome string its name in the log
---@field error string the OAuth error code
---@field description string

local function refuse(outcome, code, description)
  return { outcome = outcome, error = code, description = description }
end

---@class lucidauth.sandbox.GrantsOptions
---@field clock fun(): number epoch seconds
---@field random fun(bytes: integer): string hexadecimal digits
---@field settings table read at every call, so it may change meanwhile

---@param options lucidauth.sandbox.GrantsOptions
function grants.new(options)
  return setmetatable({
    clock = options.clock,
    random = options.random,
    settings = options.settings,
    codes = {},
    tokens = {},
    list = {},
    serial = { access = 0, refresh = 0, code = 0 },
  }, Grants)
end

-- Ends every token of a grant.
local function finish(grant, reason)
  grant.ended = grant.ended or reason
end

local MARKS = { access = "A", refresh = "R", code = "C" }

-- A mark names a token in the log without telling anything of it.
function Grants:mark(kind)
  self.serial[kind] = self.serial[kind] + 1
  return MARKS[kind] .. self.serial[kind]
end

function Grants:add_token(grant, kind, lifetime, text)
  text = text or "oauth2-" .. kind:sub(1, 1) .. "-" .. self.random(24)
  local token = {
    text = text,
    kind = kind,
    mark = self:mark(kind),
    grant = grant,
    expires_at = self.clock() + lifetime,
    used = false,
  }
  self.tokens[text] = token
  grant[kind] = token
  return token
end

function Grants:is_live(token)
  return not token.used
    and not token.grant.ended
    and self.clock() < token.expires_at
end

---@class lucidauth.sandbox.GrantRequest
---@field account? string a name of your choice
---@field kind? "user"|"account"
---@field scope? string
---@field refresh_token? string instead of a random one

--- Opens a grant, as if a user had logged in. It has a refresh token only if
--- its scope holds offline_access, and no access token yet.
---@param request lucidauth.sandbox.GrantRequest
---@return table grant
function Grants:open(request)
  local number = #self.list + 1
  local grant = {
    number = number,
    account = request.account or "login-" .. number,
    kind = request.kind or "user",
    scope = request.scope or grants.DEFAULT_SCOPE,
    user_id = 1000 + number,
    rotations = 0,
  }
  self.list[number] = grant
  if (" " .. grant.scope .. " "):find(" offline_access ", 1, true) then
    local lifetime = self.settings.refresh_lifetime
    self:add_token(grant, "refresh", lifetime, request.refresh_token)
  end
  return grant
end

--- Whether these are the client's own id and secret.
---@param id string|nil
---@param secret string|nil
---@return boolean
function Grants:is_client(id, secret)
  return id == self.settings.client_id and secret == self.settings.client_secret
end

---@class lucidauth.sandbox.Authorization
---@field kind "user"|"account"
---@field scope string
---@field redirect_uri string
---@field challenge? string PKCE
---@field method? "S256"|"plain"

--- Gives a code for a login that the user has allowed.
---@param authorization lucidauth.sandbox.Authorization
---@return string code
function Grants:authorize(authorization)
  local text = self.random(20)
  self.codes[text] = {
    kind = authorization.kind,
    scope = authorization.scope,
    redirect_uri = authorization.redirect_uri,
    challenge = authorization.challenge,
    method = authorization.method,
    mark = self:mark("code"),
    expires_at = self.clock() + self.settings.code_lifetime,
  }
  return text
end

function Grants:issue(grant)
  local lifetime = self.settings.lifetime
  local access = self:add_token(grant, "access", lifetime)
  return {
    access_token = access.text,
    refresh_token = grant.refresh and grant.refresh.text,
    client_id = self.settings.client_id,
    expires_in = lifetime,
    expires = math.floor(access.expires_at * 1000),
    scope = grant.scope,
    token_type = "bearer",
    user_id = grant.user_id,
  }
end

--- RFC 7636, section 4.1: 43 to 128 unreserved characters.
---@param text any
---@return boolean
function grants.is_pkce(text)
  return type(text) == "string"
    and #text >= 43
    and #text <= 128
    and not text:find("[^%w%-._~]")
end

local function proves(code, verifier)
  if not code.challenge then
    return verifier == nil
  elseif not grants.is_pkce(verifier) then
    return false
  elseif code.method == "S256" then
    verifier = codec.s256(verifier)
  end
  return verifier == code.challenge
end

function Grants:refuse_used_code(code)
  if code.grant and self.settings.punish_reuse then
    finish(code.grant, "code reuse")
  end
  return refuse("code_reuse", "invalid_grant", "this code was used before")
end

---@class lucidauth.sandbox.Exchange
---@field code string
---@field redirect_uri? string
---@field code_verifier? string

--- Exchanges a code for the tokens of a new grant.
---@param request lucidauth.sandbox.Exchange
---@return table|nil answer
---@return lucidauth.sandbox.Refusal|nil refusal
function Grants:exchange(request)
  local code = self.codes[request.code]
  if not code then
    return nil, refuse("unknown", "invalid_grant", "this code is not known")
  elseif code.used then
    return nil, self:refuse_used_code(code)
  end
  code.used = true
  if self.clock() >= code.expires_at then
    return nil, refuse("expired", "invalid_grant", "this code has expired")
  elseif request.redirect_uri ~= code.redirect_uri then
    return nil, refuse("mismatch", "invalid_grant",
      "the redirect_uri differs from the one that the code was given for")
  elseif not proves(code, request.code_verifier) then
    return nil, refuse("mismatch", "invalid_grant",
      "the code_verifier does not belong to the code_challenge")
  end
  code.grant = self:open({ kind = code.kind, scope = code.scope })
  return self:issue(code.grant)
end

function Grants:refuse_dead(token)
  if token.used then
    if self.settings.punish_reuse then
      finish(token.grant, "reuse")
    end
    return refuse("reuse", "invalid_grant",
      "this refresh token was used before")
  elseif token.grant.ended then
    return refuse("revoked", "invalid_grant", "this grant was revoked")
  end
  return refuse("expired", "invalid_grant", "this refresh token has expired")
end

--- Spends a refresh token: the old pair is dead when this returns.
---@param text string the refresh token
---@return table|nil answer
---@return lucidauth.sandbox.Refusal|nil refusal
function Grants:refresh(text)
  local token = self.tokens[text]
  if not token or token.kind ~= "refresh" then
    return nil,
      refuse("unknown", "invalid_grant", "this refresh token is not known")
  elseif not self:is_live(token) then
    return nil, self:refuse_dead(token)
  end
  local grant = token.grant
  if self.settings.rotate then
    token.used = true
    if grant.access then
      grant.access.used = true
    end
    grant.rotations = grant.rotations + 1
    self:add_token(grant, "refresh", self.settings.refresh_lifetime)
  end
  return self:issue(grant)
end

--- The answer of introspection about an access or a refresh token.
---@param text string
---@return table answer
function Grants:introspect(text)
  local token = self.tokens[text]
  if not token or not self:is_live(token) then
    return { active = false }
  end
  return {
    active = true,
    client_id = self.settings.client_id,
    expires_in = math.floor(token.expires_at - self.clock()),
    expires = math.floor(token.expires_at * 1000),
    scope = token.grant.scope,
    user_id = token.grant.user_id,
  }
end

--- Ends the grant of a live token. A dead one changes nothing (RFC 7009).
---@param text string an access or a refresh token
---@return boolean ended
function Grants:revoke(text)
  local token = self.tokens[text]
  if not token or not self:is_live(token) then
    return false
  end
  finish(token.grant, "revoked")
  return true
end

--- The grant that an API call may act for.
---@param text string an access token
---@return table|nil grant
function Grants:bearer(text)
  local token = self.tokens[text]
  if token and token.kind == "access" and self:is_live(token) then
    return token.grant
  end
end

--- The grant of a token or of a used code, and the mark that stands for it.
---@param text string|nil
---@return string|nil mark "unknown" for a text that was never issued
---@return table|nil grant
function Grants:identify(text)
  if not text then
    return nil
  end
  local known = self.tokens[text] or self.codes[text]
  if not known then
    return "unknown"
  end
  return known.mark, known.grant
end

local function concerns(grant, account)
  return account == nil or grant.account == account
end

--- Makes access tokens expire now.
---@param account string|nil of this account only
---@return integer count
function Grants:expire(account)
  local count = 0
  for _, token in pairs(self.tokens) do
    local live = token.kind == "access" and self:is_live(token)
    if live and concerns(token.grant, account) then
      token.expires_at = self.clock()
      count = count + 1
    end
  end
  return count
end

--- Revokes grants, as an administrator would.
---@param account string|nil of this account only
---@return integer count
function Grants:revoke_all(account)
  local count = 0
  for _, grant in ipairs(self.list) do
    if not grant.ended and concerns(grant, account) then
      finish(grant, "revoked")
      count = count + 1
    end
  end
  return count
end

--- A grant with its present tokens, for tests to compare with.
---@param grant table
---@return table
function Grants:describe(grant)
  local access, refresh = grant.access, grant.refresh
  return {
    account = grant.account,
    kind = grant.kind,
    scope = grant.scope,
    user_id = grant.user_id,
    rotations = grant.rotations,
    ended = grant.ended,
    access_token = access and access.text,
    access_live = access ~= nil and self:is_live(access),
    expires_at = access and access.expires_at,
    refresh_token = refresh and refresh.text,
    refresh_live = refresh ~= nil and self:is_live(refresh),
  }
end

return grants
