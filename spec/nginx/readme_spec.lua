-- The README's nginx.conf, and those of docs/OPENRESTY.md: they are complete, and the
-- token goes to nobody but the server that it is meant for.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")
local tokens = require("spec.tokens")

local fixture = nginx.fixture()

local BLOCK = assert(helper.read_file("README.md"):match("```nginx\n(.-)```"))
local AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
local PLACE = "api.lucid.co"

local function replace(text, part, by)
  local from, to = text:find(part, 1, true)
  assert(from, part .. " is not in the README's nginx.conf")
  return text:sub(1, from - 1) .. by .. text:sub(to + 1)
end

-- For one host's name, signed by nobody but itself.
local function certificate(name)
  local path = nginx.folder() .. "/" .. name
  helper.shell(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
    .. "-days 2 -subj /CN=%s -addext subjectAltName=DNS:%s -keyout %s.key -out %s.pem 2>&1")
    :format(name, name, helper.quote(path), helper.quote(path)))
  return path
end

local HTTP = [[
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
]]

local TLS = [[
  upstream localhost { server 127.0.0.1:%d; }
  server {
    listen 127.0.0.1:%d ssl;
    ssl_certificate %s.pem;
    ssl_certificate_key %s.key;
    location / { proxy_pass %s; }
  }
]]

-- The README's nginx.conf as it stands, before a server that has the first
-- certificate and while the second is trusted.
local function start(presented, trusted)
  local port = helper.free_port()
  local whole = replace(BLOCK, PLACE, "localhost")
  whole = replace(whole, AUTHORITIES, trusted .. ".pem")
  whole = replace(whole, "http {",
    HTTP .. TLS:format(port, port, presented, presented, fixture.sandbox.url))
  fixture:start({ whole = whole })
end

it("reaches the API through a server that proves its name", function()
  local own = certificate("localhost")
  start(own, own)
  local status, body = fixture.server:get("/lucid/users/me/profile")
  assert.are.equal(200, status, body)
  fixture:assert_no_problems()
end)

for what, certificates in pairs({
  ["whose certificate nobody vouches for"] = { "localhost", "elsewhere" },
  ["of another name"] = { "elsewhere", "elsewhere" },
}) do
  it("keeps the token from a server " .. what, function()
    start(certificate(certificates[1]), certificate(certificates[2]))
    assert.are.equal(502, (fixture.server:get("/lucid/users/me/profile")))
    assert.are.equal(0, fixture.sandbox:counts().api_requests)
  end)
end

describe("docs/OPENRESTY.md", function()
  local function start_block(section, changes)
    local page = helper.read_file("docs/OPENRESTY.md")
    local whole = page:match("\n## " .. section .. "\n.-```nginx\n(.-)```")
    whole = replace(whole, "http {", HTTP)
    for part, by in pairs(changes) do
      whole = whole:gsub(part:gsub("%p", "%%%0"), by)
    end
    fixture:start({ whole = whole })
  end

  it("has a proxy", function()
    start_block("A complete nginx.conf", { ["https://api.lucid.co"] = fixture.sandbox.url })
    assert.are.equal(200, (fixture.server:get("/lucid/users/me/profile")))
    fixture:assert_no_problems()
  end)

  it("has one that sends a request once more after a 401", function()
    start_block("After a 401", { ["https://api.lucid.co"] = fixture.sandbox.url })
    assert.are.equal(200, (fixture.server:get("/users/me/profile")))
    fixture.sandbox:expire()
    assert.are.equal(200, (fixture.server:get("/users/me/profile")))
    assert.are.equal(1, fixture.sandbox:counts().api_401)
    assert.are.equal(2, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("has several accounts", function()
    local folder = nginx.folder()
    local pair = tokens.pair(fixture.sandbox)
    tokens.write(folder .. "/anna.json", tokens.record(pair, 3600))
    nginx.give(folder .. "/anna.json")
    start_block("Several accounts", { ["/var/lib/lucid"] = folder })
    local status, body = fixture.server:get("/as/anna/token")
    assert.are.equal(200, status)
    assert.are.equal(pair.access_token .. "\n", body)
    fixture:assert_no_problems()
  end)
end)
