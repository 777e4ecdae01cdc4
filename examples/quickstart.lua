-- Shows the life of a token. examples/quickstart runs this twice, against a sandbox.
local http, socket = require("socket.http"), require("socket")
local lucid = require("lucidauth")

local token = assert(lucid.token())
local left = lucid.status().expires_in
print(("token() gives a token that is good for %.1f seconds more"):format(left))
assert(lucid.token() == token)
print("token() gives the same one again, from memory")

local api = os.getenv("LUCID_API_URL")
if api then -- the sandbox; Lucid itself speaks https, which luasocket does not
  local headers = { ["Authorization"] = lucid.authorization(), ["Lucid-Api-Version"] = "1" }
  local _, status = http.request({ url = api .. "/users/me/profile", headers = headers })
  print("GET /users/me/profile with this token answers " .. status)

  repeat socket.sleep(0.1) until assert(lucid.token()) ~= token
  print("the token's time was up: token() refreshed it and gives a new one")
end
