--- A relay between a client and the sandbox, for the specs: socat, which carries
--- connections on.

local helper = require("spec.helper")

local relay = {}

--- A server with TLS, which ends with stop().
---@class spec.Relay
---@field url string
---@field ca_file string that vouches for it
---@field folder string of its certificates
---@field process helper.Process
local Front = {}
Front.__index = Front

--- Starts socat with two of its addresses, of which the first listens.
---@param listen string
---@param connect string
---@return helper.Process process with its `port`
function relay.start(listen, connect)
  local process = helper.start({ "socat", "-d", "-d", listen, connect })
  process.port = helper.eventually(function()
    local said = helper.read_file(process.folder .. "/err") or ""
    return said:match("listening on AF=2 127%.0%.0%.1:(%d+)")
  end)
  return process
end

-- Certificates of "localhost" and of the one who vouches for it.
local function certify(folder)
  local function openssl(command)
    local _, err, status = helper.run("cd " .. helper.quote(folder) .. " && openssl " .. command)
    assert(status == 0, err)
  end
  local key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
  openssl("req -x509 " .. key .. " -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test CA'")
  openssl("req " .. key .. " -keyout server.key -out server.csr -subj /CN=localhost")
  helper.write_file(folder .. "/names", "subjectAltName=DNS:localhost\n")
  openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
    .. " -days 2 -extfile names -out server.pem")
end

--- Speaks TLS in front of a server that does not.
---@param url string the server's
---@return spec.Relay
function relay.tls(url)
  local self = setmetatable({ folder = helper.tmpdir() }, Front)
  certify(self.folder)
  self.process = relay.start(
    ("OPENSSL-LISTEN:0,bind=127.0.0.1,fork,verify=0,cert=%s,key=%s"):format(
      self.folder .. "/server.pem", self.folder .. "/server.key"),
    (url:gsub("^http://", "TCP:")))
  self.ca_file = self.folder .. "/ca.pem"
  self.url = "https://localhost:" .. self.process.port
  return self
end

function Front:stop()
  self.process:kill("TERM")
  self.process:wait()
end

return relay
