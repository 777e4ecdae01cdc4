-- What is set up wrongly: a clear line in the error log, a clear answer, and
-- the worker lives on.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local sandbox, server

local function start(options)
  options.sandbox = sandbox
  server = nginx.start(options)
  return server
end

local SERVER = [[
  location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
  location /assert { access_by_lua_block {
    ngx.req.set_header("Authorization", assert(require("lucidauth").authorization())) }
    content_by_lua_block { ngx.exit(204) } }
  location /other { return 200 "other"; }
]]

local function contains(text, ...)
  for _, part in ipairs({ ... }) do
    assert.is_truthy(text:find(part, 1, true), ("%q is missing in: %s"):format(part, text))
  end
end

-- The worker that was there at the start still is, and serves.
local function lives_on(pid)
  assert.are.equal(pid, server:workers()[1])
  local status = server:get("/other")
  assert.are.equal(200, status)
end

setup(function()
  sandbox = helper.start_sandbox()
end)

teardown(function()
  sandbox:stop()
end)

before_each(function()
  sandbox:reset()
  server = nil
end)

after_each(function()
  if server then
    server:stop()
  end
end)

describe("a missing env directive", function()
  for _, name in ipairs({ "LUCID_CLIENT_ID", "LUCID_CLIENT_SECRET", "LUCID_REFRESH_TOKEN" }) do
    it("is named, and how to add it: " .. name, function()
      start({ workers = 1, env = { [name] = false }, server = SERVER })
      local pid = server:workers()[1]
      local _, body = server:get("/token")
      contains(body, "config: ", name, "nginx hides the environment", '"env ' .. name .. ';"')
      assert.are.equal(500, (server:get("/assert")))
      contains(server:log(), "[error]", '"env ' .. name .. ';"')
      assert.are.equal("", server:problems("env " .. name))
      lives_on(pid)
      assert.are.equal(0, sandbox:counts().token_requests)
    end)
  end

  it("of the token file is named when the default cannot be used", function()
    start({ workers = 1, env = { LUCID_TOKEN_FILE = false }, server = SERVER })
    helper.run("chmod 755 " .. helper.quote(server.prefix))
    local _, body = server:get("/token")
    if nginx.user then
      contains(body, "storage: ", '"env LUCID_TOKEN_FILE;"')
      assert.are.equal(0, sandbox:counts().token_requests)
    end
  end)

  it("is not suspected when the option is given", function()
    start({
      workers = 1,
      init = [[ require("lucidauth").configure({ client_id = "somebody else" }) ]],
      env = { LUCID_CLIENT_ID = false },
      server = SERVER,
    })
    local _, body = server:get("/token")
    contains(body, "invalid_client: ")
    assert.is_nil(body:find("environment", 1, true))
  end)
end)

describe("a storage", function()
  if nginx.user then
    it("that the workers may not write is reported, and nothing is spent", function()
      local folder = helper.tmpdir()
      helper.run("chmod 755 " .. helper.quote(folder))
      start({ workers = 1, env = { LUCID_TOKEN_FILE = folder .. "/token.json" }, server = SERVER })
      local pid = server:workers()[1]
      local _, body = server:get("/token")
      contains(body, "storage: ", folder .. "/token.json.lock", "Permission denied",
        "Let this program's user read and write the file and its folder.")
      assert.are.equal(500, (server:get("/assert")))
      contains(server:log(), "[error]", "Permission denied")
      assert.are.equal("", server:problems("Permission denied"))
      lives_on(pid)
      assert.are.equal(0, sandbox:counts().token_requests)
      -- and once it is mended, the next call works
      helper.run(("chown %s %s"):format(nginx.user, helper.quote(folder)))
      _, body = server:get("/token")
      assert.are.equal(sandbox:grant().access_token .. "\n", body)
    end)

    it("that root has filled is refused with advice", function()
      start({ workers = 1, server = SERVER })
      local file = server.token_file
      helper.write_file(file, '{"refresh_token": "x"}')
      helper.run("chmod 600 " .. helper.quote(file))
      local _, body = server:get("/token")
      contains(body, "storage: ", file)
      assert.is_truthy(body:find("chown") or body:find("Permission denied"), body)
      helper.run(("chown %s %s"):format(nginx.user, helper.quote(file)))
      helper.write_file(file, ('{"refresh_token": "%s"}'):format(sandbox.refresh_token))
      _, body = server:get("/token")
      assert.are.equal(sandbox:grant().access_token .. "\n", body)
    end)
  end

  it("that disappears while nginx runs costs no token", function()
    start({ workers = 1, server = SERVER .. [[
      location /refresh { content_by_lua_block {
        ngx.say(said(require("lucidauth").refresh())) } } ]] })
    server:get("/token")
    local folder = server.token_file:match("^(.*)/")
    helper.run(("mv %s %s"):format(helper.quote(folder), helper.quote(folder .. ".away")))
    local _, body = server:get("/refresh")
    contains(body, "storage: ", "No such file or directory")
    assert.are.equal(1, sandbox:counts().token_requests)
    helper.run(("mv %s %s"):format(helper.quote(folder .. ".away"), helper.quote(folder)))
    _, body = server:get("/refresh")
    assert.are.equal(sandbox:grant().access_token .. "\n", body)
    assert.are.equal(0, sandbox:counts().reuses)
  end)
end)

describe("a server that is down at the start", function()
  it("is reported, and asked again when it is there", function()
    local port = nginx.free_port()
    start({
      workers = 1,
      init = [[ require("lucidauth").configure({ timeout = 0.3 }) ]],
      env = { LUCID_API_URL = "http://127.0.0.1:" .. port },
      server = SERVER,
    })
    local pid = server:workers()[1]
    local _, body = server:get("/token")
    contains(body, "network: ", "LUCID_API_URL")
    assert.are.equal(500, (server:get("/assert")))
    contains(server:log(), "[error]", "Check the network and LUCID_API_URL")
    contains(server:log(), "[warn]", "lucidauth: refresh_failed (account default): ")
    assert.are.equal("", server:problems("Check the network and LUCID_API_URL"))
    lives_on(pid)
    local late = helper.start_sandbox({ port = port, refresh_token = sandbox.refresh_token })
    nginx.eventually(function()
      _, body = server:get("/token")
      return body == tostring(late:grant().access_token) .. "\n"
    end)
    assert.are.equal(1, late:counts().token_requests)
    late:stop()
  end)
end)

describe("a mistake in configure", function()
  it("in a handler is an error in the log, and the worker lives on", function()
    start({ workers = 1, server = SERVER .. [[
      location /mistake { content_by_lua_block {
        require("lucidauth").configure({ client_idd = "x" })
      } }
      location /url { content_by_lua_block {
        require("lucidauth").configure({ api_url = "http://api.lucid.co" })
      } }
      location /account { content_by_lua_block {
        require("lucidauth").token(5)
      } }
    ]] })
    local pid = server:workers()[1]
    assert.are.equal(500, (server:get("/mistake")))
    assert.are.equal(500, (server:get("/url")))
    assert.are.equal(500, (server:get("/account")))
    contains(server:log(), "content_by_lua(nginx.conf:",
      'unknown option "client_idd"; did you mean "client_id"?',
      "The option api_url cannot be used: ", "account must be a string")
    for line in server:log():gmatch("[^\n]+") do
      if line:find("[error]", 1, true) then
        contains(line, "content_by_lua(nginx.conf:")
      end
    end
    lives_on(pid)
    local _, body = server:get("/token")
    assert.are.equal(sandbox:grant().access_token .. "\n", body)
  end)

  it("in init_by_lua keeps nginx from starting, and says why", function()
    local ok, message = pcall(start, {
      init = [[ require("lucidauth").configure({ refresh_befor = 5 }) ]],
    })
    assert.is_false(ok)
    contains(message, 'unknown option "refresh_befor"; did you mean "refresh_before"?')
  end)

  it("in init_by_lua at a reload leaves the old workers alone", function()
    start({ workers = 1, server = SERVER })
    local pid = server:workers()[1]
    server:change({ init = [[ require("lucidauth").configure({ refresh_befor = 5 }) ]] })
    server:signal("HUP")
    nginx.eventually(function()
      return server:log():find("did you mean", 1, true)
    end)
    lives_on(pid)
    local _, body = server:get("/token")
    assert.are.equal(sandbox:grant().access_token .. "\n", body)
  end)
end)

describe("an event handler", function()
  it("that fails costs no token, and is an error in the log", function()
    start({
      workers = 1,
      init = [[ require("lucidauth").configure({ on_event = function(event)
        ngx.log(ngx.NOTICE, "event ", event.name)
        error("a mistake in the handler")
      end }) ]],
      server = SERVER,
    })
    local _, body = server:get("/token")
    assert.are.equal(sandbox:grant().access_token .. "\n", body)
    contains(server:log(), "event refreshed", "[error]", "on_event failed: ",
      "a mistake in the handler")
  end)
end)
