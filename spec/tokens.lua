--- Token records for the specs: a sandbox's genuine tokens with the times that
--- a spec wants, so that none has to wait for a token to grow old.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")

local tokens = {}

--- The answer to a refresh that was sent by hand: the grant's present pair.
---@param sandbox helper.Sandbox
---@param account string|nil "default"
---@return table answer
function tokens.pair(sandbox, account)
  local status, answer = helper.http_json("POST", sandbox.url .. "/oauth2/token", {
    client_id = sandbox.client_id,
    client_secret = sandbox.client_secret,
    grant_type = "refresh_token",
    refresh_token = sandbox:grant(account).refresh_token,
  })
  assert(status == 200, "the sandbox gave no tokens")
  return answer
end

--- An answer as a record whose token has `left` seconds of its `lifetime`.
---@param answer table
---@param left number negative: it has expired
---@param lifetime number|nil 3600
---@return table record
function tokens.record(answer, left, lifetime)
  local record = helper.merge(answer)
  record.expires_at = os.time() + left
  record.obtained_at = record.expires_at - (lifetime or 3600)
  record.expiration = os.date("%Y-%m-%dT%H:%M:%S", record.expires_at)
  return record
end

---@param path string
---@param record table
function tokens.write(path, record)
  helper.write_file(path, codec.encode_json(record))
  assert(os.execute("chmod 600 " .. helper.quote(path)))
end

---@param path string
---@return table|nil record
function tokens.read(path)
  local text = helper.read_file(path)
  return text and codec.decode_json(text)
end

--- Whether the API takes this token.
---@param sandbox helper.Sandbox
---@param token string
---@return boolean
function tokens.works(sandbox, token)
  return helper.http_json("GET", sandbox.url .. "/users/me/profile", nil, {
    authorization = "Bearer " .. token,
    ["lucid-api-version"] = "1",
  }) == 200
end

--- A table without any LUCID_ variable of the one who runs the specs.
---@param env table<string, string|false>|nil
---@return table<string, string|false>
function tokens.env(env)
  return helper.merge({
    LUCID_CLIENT_ID = false,
    LUCID_CLIENT_SECRET = false,
    LUCID_REFRESH_TOKEN = false,
    LUCID_TOKEN_FILE = false,
    LUCID_API_URL = false,
  }, env)
end

return tokens
