-- Shows a script for cron: it calls the API, handles a 401, and says by its exit code how it went.
--
--     install -d -m 700 ~/.local/state/lucid
--     crontab -e
--
-- cron knows neither your environment nor your folder, so the crontab says all:
--
--     LUCID_CLIENT_ID=...
--     LUCID_CLIENT_SECRET=...
--     LUCID_REFRESH_TOKEN=...
--     LUA_PATH=...      as luarocks --lua-version 5.4 path says it, after luarocks make --local
--     LUA_CPATH=...
--     17 * * * *  lua5.4 /path/to/cron.lua
--
-- It prints nothing as long as all is well, so cron sends no mail. Its exit codes are those of
-- sysexits.h:
--
--     0    done
--     69   the API refused the request
--     75   no token or no answer at the moment: the next run tries again
--     78   somebody has to do something, for instance log in again; the message says what

local lucid = require "lucidauth"

local API = os.getenv "LUCID_API_URL" or "https://api.lucid.co"
local TOKENS = os.getenv "HOME" .. "/.local/state/lucid/token_info.json"

local UNAVAILABLE, TRY_AGAIN, DO_SOMETHING = 69, 75, 78

-- The other codes may pass by themselves.
local NEEDS_SOMEBODY = {
  config = true,
  invalid_client = true,
  invalid_grant = true,
  lost_rotation = true,
}

-- Closes the Lua state, which tries once more to save tokens that could not be saved.
local function fail(exit_code, message)
  io.stderr:write("cron.lua: ", message, "\n")
  os.exit(exit_code, true)
end

local function authorization()
  local header, message, code = lucid.authorization()
  if not header then
    fail(NEEDS_SOMEBODY[code] and DO_SOMETHING or TRY_AGAIN, message)
  end
  return header
end

-- A GET by the curl program. The token goes into a file that only this user can read: others can
-- see command lines. The status is "000" when there is no answer.
local function get(path, header)
  local name = os.tmpname()
  local config = assert(io.open(name, "w"))
  config:write('url = "', API, path, '"\nheader = "Lucid-Api-Version: 1"\n')
  config:write('header = "Authorization: ', header, '"\nwrite-out = "%{http_code}"\n')
  config:close()
  local curl = assert(io.popen("curl --silent --show-error --max-time 60 --config " .. name))
  local answer = curl:read "*a"
  curl:close()
  os.remove(name)
  return answer:sub(-3), answer:sub(1, -4)
end

lucid.configure { storage = TOKENS }

local header = authorization()
local status, body = get("/users/me/profile", header)
if status == "401" then
  -- The token died before its time. The request was not carried out, so it may be sent once more.
  lucid.reject(header)
  status, body = get("/users/me/profile", authorization())
end
if status == "000" or status == "429" or status:find "^5" then
  fail(TRY_AGAIN, "the API does not answer at the moment (" .. status .. ")")
elseif status ~= "200" then
  fail(UNAVAILABLE, "the API answers " .. status .. ": " .. body)
end

-- Your own work comes here; `body` is the answer.
