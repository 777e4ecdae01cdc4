-- A wrong set-up brings a clear line in the error log and a clear answer, and the
-- worker lives on.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local contains = nginx.assert_contains
local fixture = nginx.fixture()

local ASSERT = [[
  location /assert { access_by_lua_block {
    ngx.req.set_header("Authorization", assert(require("lucidauth").authorization())) }
    content_by_lua_block { ngx.exit(204) } }
]]

-- The worker that was there at the start still is, and serves.
local function lives_on(pid)
  assert.are.equal(pid, fixture.server:workers()[1])
  local status = fixture.server:get("/other")
  assert.are.equal(200, status)
end

describe("a missing env directive", function()
  for _, name in ipairs({ "LUCID_CLIENT_ID", "LUCID_CLIENT_SECRET", "LUCID_REFRESH_TOKEN" }) do
    it("is named, and how to add it: " .. name, function()
      fixture:start({ workers = 1, env = { [name] = false }, server = ASSERT })
      local pid = fixture.server:workers()[1]
      local _, body = fixture.server:get("/token")
      contains(body, "config: ", name, "nginx hides the environment", '"env ' .. name .. ';"')
      assert.are.equal(500, (fixture.server:get("/assert")))
      contains(fixture.server:log(), "[error]", '"env ' .. name .. ';"')
      fixture:assert_no_problems("env " .. name)
      lives_on(pid)
      assert.are.equal(0, fixture.sandbox:counts().token_requests)
    end)
  end

  it("of the token file is named when the default cannot be used", function()
    fixture:start({ workers = 1, env = { LUCID_TOKEN_FILE = false }, server = ASSERT })
    helper.run("chmod 755 " .. helper.quote(fixture.server.prefix))
    local _, body = fixture.server:get("/token")
    if nginx.user then
      contains(body, "storage: ", '"env LUCID_TOKEN_FILE;"')
      assert.are.equal(0, fixture.sandbox:counts().token_requests)
    end
  end)

  it("is not suspected when the option is given", function()
    fixture:start({
      workers = 1,
      init = [[ require("lucidauth").configure({ client_id = "somebody else" }) ]],
      env = { LUCID_CLIENT_ID = false },
      server = ASSERT,
    })
    local _, body = fixture.server:get("/token")
    contains(body, "invalid_client: ")
    assert.is_nil(body:find("environment", 1, true))
  end)
end)

describe("a storage", function()
  if nginx.user then
    it("that the workers may not write is reported, and nothing is spent", function()
      local folder = helper.tmpdir()
      helper.run("chmod 755 " .. helper.quote(folder))
      fixture:start({
        workers = 1,
        env = { LUCID_TOKEN_FILE = folder .. "/token.json" },
        server = ASSERT,
      })
      local pid = fixture.server:workers()[1]
      local _, body = fixture.server:get("/token")
      contains(body, "storage: ", folder .. "/token.json.lock", "Permission denied",
        "Let this program's user read and write the file and its folder.")
      assert.are.equal(500, (fixture.server:get("/assert")))
      contains(fixture.server:log(), "[error]", "Permission denied")
      fixture:assert_no_problems("Permission denied")
      lives_on(pid)
      assert.are.equal(0, fixture.sandbox:counts().token_requests)
      -- and once it is mended, the next call works
      helper.run(("chown %s %s"):format(nginx.user, helper.quote(folder)))
      _, body = fixture.server:get("/token")
      assert.are.equal(fixture.sandbox:grant().access_token .. "\n", body)
    end)

    it("that a script of root's has made is named, file by file, until it is given away", function()
      fixture:start({ workers = 1 })
      local file = fixture.server.token_file
      local token = fixture:run_script("token")
      local _, body = fixture.server:get("/token")
      contains(body, "storage: ", file .. " belongs to user 0, but this program runs as user ",
        "give it the file (chown)")

      nginx.give(file)
      _, body = fixture.server:get("/token")
      assert.are.equal(token, body)
      _, body = fixture.server:get("/refresh")
      contains(body, "storage: ", file .. ".lock belongs to user 0, ")
      assert.are.equal(1, fixture:posts())

      nginx.give(file .. ".lock")
      _, body = fixture.server:get("/refresh")
      assert.is_true(fixture:is_token(body), body)
      assert.are.equal(body, fixture:run_script("token", nginx.user))
      assert.are.equal(2, fixture:posts())
    end)

    it("that belongs to the workers is left alone by a script of root's, with advice", function()
      fixture:start({ workers = 1 })
      fixture.server:get("/token")
      local ok, message = pcall(fixture.run_script, fixture, "refresh")
      assert.is_false(ok)
      contains(message, "belongs to user ", "Run it as that user, or give it the file (chown).")
      assert.are.equal(1, fixture:posts())
      fixture:await_token()
    end)
  end

  it("that disappears while nginx runs costs no token", function()
    fixture:start({ workers = 1, server = ASSERT })
    fixture.server:get("/token")
    local folder = fixture.server.token_file:match("^(.*)/")
    helper.run(("mv %s %s"):format(helper.quote(folder), helper.quote(folder .. ".away")))
    local _, body = fixture.server:get("/refresh")
    contains(body, "storage: ", "No such file or directory")
    assert.are.equal(1, fixture.sandbox:counts().token_requests)
    helper.run(("mv %s %s"):format(helper.quote(folder .. ".away"), helper.quote(folder)))
    _, body = fixture.server:get("/refresh")
    assert.are.equal(fixture.sandbox:grant().access_token .. "\n", body)
    assert.are.equal(0, fixture.sandbox:counts().reuses)
  end)
end)

describe("a part of lucidauth that is loaded later", function()
  -- A copy of the module's parts in C, which is looked in first.
  local function copy(change)
    local folder = nginx.folder()
    helper.run(("cp -r %s/lib %s/lib && chmod 755 %s %s/.. && cd %s/lib/lucidauth && %s"):format(
      helper.quote(nginx.modules()), folder, folder, folder, folder, change))
    return folder, ([[ package.cpath = "%s/lib/?.so;" .. package.cpath ]]):format(folder)
  end
  local EARLY = [[ require "lucidauth" ]]

  if nginx.user then
    it("is the workers', when the master has loaded it, whether they may read it or not", function()
      local _, path = copy("chmod 600 *.so")
      fixture:start({ workers = 1, init = path .. EARLY })
      local _, body = fixture.server:get("/token")
      assert.are.equal(fixture.sandbox:grant().access_token .. "\n", body)
      fixture:assert_no_problems()
    end)

    it("is named at once when the workers may not read it", function()
      local folder, path = copy("chmod 600 curl.so")
      fixture:start({ workers = 1, init = path,
        http = [[ init_worker_by_lua_block { require "lucidauth" } ]] })
      nginx.eventually(function()
        return fixture.server:log():find("cannot be read", 1, true)
      end)
      contains(fixture.server:log(), folder .. "/lib/lucidauth/curl.so is there",
        "let that user read it")
      assert.are.equal(0, fixture:posts())
    end)
  end

  it("is named at the start when it is missing, and nginx starts", function()
    local folder, path = copy("rm curl.so")
    fixture:start({ workers = 1, init = path .. EARLY })
    local problem = "part of lucidauth is missing, the file curl.so"
    contains(fixture.server:log(), problem, folder .. "/lib/lucidauth", "install lucidauth again")
    local _, body = fixture.server:get("/token")
    contains(body, problem)
    assert.are.equal(0, fixture:posts())
  end)
end)

describe("a server that is down at the start", function()
  it("is reported, and asked again when it is there", function()
    local port = helper.free_port()
    fixture:start({
      workers = 1,
      init = [[ require("lucidauth").configure({ timeout = 2 }) ]],
      env = { LUCID_API_URL = "http://127.0.0.1:" .. port },
      server = ASSERT,
    })
    local pid = fixture.server:workers()[1]
    local _, body = fixture.server:get("/token")
    contains(body, "network: ", "LUCID_API_URL")
    assert.are.equal(500, (fixture.server:get("/assert")))
    contains(fixture.server:log(), "[error]", "Check the network and LUCID_API_URL")
    contains(fixture.server:log(), "[warn]", "lucidauth: refresh_failed (account default): ")
    fixture:assert_no_problems("Check the network and LUCID_API_URL")
    lives_on(pid)
    local late = helper.start_sandbox({
      port = port, refresh_token = fixture.sandbox.refresh_token,
    })
    nginx.eventually(function()
      _, body = fixture.server:get("/token")
      return body == tostring(late:grant().access_token) .. "\n"
    end)
    assert.are.equal(1, late:counts().token_requests)
    late:stop()
  end)
end)

describe("a mistake in configure", function()
  it("in a handler is an error in the log, and the worker lives on", function()
    fixture:start({ workers = 1, server = ASSERT .. [[
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
    local pid = fixture.server:workers()[1]
    assert.are.equal(500, (fixture.server:get("/mistake")))
    assert.are.equal(500, (fixture.server:get("/url")))
    assert.are.equal(500, (fixture.server:get("/account")))
    contains(fixture.server:log(), "content_by_lua(nginx.conf:",
      'unknown option "client_idd"; did you mean "client_id"?',
      "The option api_url cannot be used: ", "account must be a string")
    for line in fixture.server:log():gmatch("[^\n]+") do
      if line:find("[error]", 1, true) then
        contains(line, "content_by_lua(nginx.conf:")
      end
    end
    lives_on(pid)
    local _, body = fixture.server:get("/token")
    assert.are.equal(fixture.sandbox:grant().access_token .. "\n", body)
  end)

  it("in init_by_lua keeps nginx from starting, and says why", function()
    local ok, message = pcall(fixture.start, fixture, {
      init = [[ require("lucidauth").configure({ refresh_befor = 5 }) ]],
    })
    assert.is_false(ok)
    contains(message, 'unknown option "refresh_befor"; did you mean "refresh_before"?')
  end)

  it("in init_by_lua at a reload leaves the old workers alone", function()
    fixture:start({ workers = 1, server = ASSERT })
    local pid = fixture.server:workers()[1]
    fixture.server:change({ init = [[ require("lucidauth").configure({ refresh_befor = 5 }) ]] })
    fixture.server:signal("HUP")
    nginx.eventually(function()
      return fixture.server:log():find("did you mean", 1, true)
    end)
    lives_on(pid)
    local _, body = fixture.server:get("/token")
    assert.are.equal(fixture.sandbox:grant().access_token .. "\n", body)
  end)
end)

describe("an event handler", function()
  it("that fails costs no token, and is an error in the log", function()
    fixture:start({
      workers = 1,
      init = [[ require("lucidauth").configure({ on_event = function(event)
        ngx.log(ngx.NOTICE, "event ", event.name)
        error("a mistake in the handler")
      end }) ]],
      server = ASSERT,
    })
    local _, body = fixture.server:get("/token")
    assert.are.equal(fixture.sandbox:grant().access_token .. "\n", body)
    contains(fixture.server:log(), "event refreshed", "[error]", "on_event failed: ",
      "a mistake in the handler")
  end)
end)

describe("a proxy that nginx hides", function()
  local function explanations(env, ...)
    local says = {}
    for i, message in ipairs { ... } do
      says[i] = ("ngx.say(explain(%q, %q))"):format(message, i % 2 == 1 and "network" or "timeout")
    end
    fixture:start({ workers = 1, env = env, server = ([[
      location /explain { content_by_lua_block {
        local explain = require("lucidauth.nginx").explain
        %s
      } }
    ]]):format(table.concat(says, "\n")) })
    local _, body = fixture.server:get("/explain")
    return body
  end
  local UNREACHED = "The token endpoint could not be reached: Could not connect to "
  local FAILURE = UNREACHED .. "api.lucid.co port 443."

  -- No packet leaves for the address of all machines.
  it("is thought of when the server cannot be reached", function()
    fixture:start({ workers = 1, server = [[
      location /token { content_by_lua_block {
        local client = require("lucidauth").new {
          api_url = "https://255.255.255.255", client_id = "c", client_secret = "s",
          refresh_token = "r", storage = { type = "memory" }, timeout = 0.1 }
        ngx.say(select(2, client:token()))
      } }
    ]] })
    local _, body = fixture.server:get("/token")
    contains(body, "255.255.255.255", "env https_proxy;", "nginx.conf")
  end)

  it("is no matter once it is named, nor on the way to this machine", function()
    local env = { https_proxy = "http://127.0.0.1:9" }
    assert.are.equal(FAILURE .. "\n", explanations(env, FAILURE))
    fixture.server:stop()
    local here = UNREACHED .. "127.0.0.1 port 8080."
    assert.are.equal(here .. "\n", explanations({}, here))
  end)

  it("is no matter where time ran out over a lock, or over an answer", function()
    local slow = "The token endpoint did not answer in time."
    local locked = "The time of this call was over while process 7 was refreshing the tokens."
    assert.are.equal(slow .. "\n" .. locked .. "\n", explanations({}, slow, locked))
  end)
end)
