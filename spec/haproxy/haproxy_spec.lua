-- examples/haproxy as it stands, in a real HAProxy: the header, a 401, and a
-- loop that goes on.

local socket = require("socket")

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)

local is_root = helper.shell("id -u") == "0\n"

-- The modules built for the Lua that HAProxy has, where another user can read them.
local function modules()
  local version = helper.shell("haproxy -vv"):match("Built with Lua version : Lua (%d%.%d)")
  local build = helper.interpreter:match("^(.*)/[^/]*$")
  local cpath = version == "5.4" and build .. "/lib/lua" or build .. "/spec/luas/" .. version
  local folder = helper.tmpdir()
  helper.shell(("cd %s && cp -rL %s lib && cp -r %s lua && chmod 711 .. && chmod -R a+rX .")
    :format(helper.quote(folder), helper.quote(cpath),
      helper.quote(assert(package.searchpath("lucidauth", package.path)):match("^(.*)/"))))
  return folder
end

local shared, server

setup(function()
  shared = modules()
end)

-- As `run` does it. `change` is for the configuration's text.
local function start(change)
  local folder = helper.tmpdir()
  local text = helper.read_file("examples/haproxy/haproxy.cfg")
  helper.write_file(folder .. "/haproxy.cfg", change and change(text) or text)
  helper.write_file(folder .. "/lucid.lua", helper.read_file("examples/haproxy/lucid.lua"))
  helper.write_file(folder .. "/lucid.cfg",
    "backend lucid\n  server api " .. fixture.sandbox.url:gsub("http://", "") .. "\n")
  server = { folder = folder, port = helper.free_port() }
  server.process = helper.start("cd " .. helper.quote(folder)
    .. " && exec haproxy -db -f haproxy.cfg -f lucid.cfg", fixture:env({
      LUCID_PORT = tostring(server.port),
      LUCID_INNER_PORT = tostring(helper.free_port()),
      LUA_PATH = shared .. "/lua/?.lua;;",
      LUA_CPATH = shared .. "/lib/?.so;;",
    }))
  server.url = "http://127.0.0.1:" .. server.port
end

local function log()
  return helper.read_file(server.process.folder .. "/err") or ""
end

-- HAProxy listens before it answers.
local function await_start()
  helper.eventually(function()
    return helper.http_json("GET", server.url .. "/") == 404
  end, "HAProxy: " .. log())
end

after_each(function()
  server.process:kill("TERM")
  server.process:wait()
end)

local function get(path, method, body)
  return helper.http_json(method or "GET", server.url .. path, body)
end

describe("HAProxy", function()
  it("adds what the API wants to see", function()
    start()
    await_start()
    local status, answer = get("/lucid/users/me/profile")
    assert.are.equal(200, status)
    assert.is_truthy(answer.email)
    assert.are.equal(1, fixture:posts())
  end)

  for _, method in ipairs({ "GET", "POST" }) do
    it("sends a request once more after a 401, with another token: " .. method, function()
      start()
      await_start()
      assert.are.equal(200, (get("/lucid/users/me/profile")))
      fixture.sandbox:expire()
      local body = method == "POST" and codec.encode_json({ text = ("x"):rep(8000) }) or nil
      assert.are.equal(404, (get("/lucid/documents?page=2", method, body)))
      local counts, entries = fixture.sandbox:counts(), fixture.sandbox:log(3).entries
      assert.are.equal(2, counts.token_requests)
      assert.are.equal(1, counts.api_401)
      for _, number in ipairs({ 1, 3 }) do
        assert.are.equal(method, entries[number].method)
        assert.are.equal("/documents", entries[number].path)
        assert.are.equal("page=2", entries[number].query)
        assert.are.equal((body or ""):sub(1, 4096), entries[number].body)
      end
      assert.are.equal("token", entries[2].endpoint)
    end)
  end

  it("passes a second 401 on", function()
    start()
    await_start()
    fixture.sandbox:faults({ kind = "answer", endpoint = "api", status = 401, times = 2 })
    assert.are.equal(401, (get("/lucid/users/me/profile")))
    assert.are.equal(200, (get("/lucid/users/me/profile")))
    assert.are.equal(3, fixture:posts())
  end)

  it("answers others while a refresh hangs", function()
    fixture.sandbox:faults({ kind = "held", when = "before", endpoint = "token" })
    start()
    await_start()
    local waiting = assert(socket.connect("127.0.0.1", server.port))
    waiting:send("GET /lucid/users/me/profile HTTP/1.0\r\n\r\n")
    helper.eventually(function()
      return fixture:posts() == 1
    end)
    for _ = 1, 20 do
      assert.are.equal(404, (get("/")))
    end
    waiting:settimeout(0)
    assert.are.equal("timeout", select(2, waiting:receive("*l")))
    fixture.sandbox:clear_faults()
    waiting:settimeout(nil)
    assert.is_truthy(waiting:receive("*l"):find(" 200 "))
    waiting:close()
  end)

  it("answers 503 when there is no token", function()
    fixture.sandbox:revoke_all()
    start()
    await_start()
    assert.are.equal(503, (get("/lucid/users/me/profile")))
    assert.are.equal(0, fixture.sandbox:counts().api_requests)
    assert.is_true(helper.contains(log(), "Log in to Lucid again"))
    fixture:assert_no_secret(log())
  end)
end)

-- HAProxy forbids threads to all but root, who may start them whatever the limit.
describe("HAProxy that has changed its user", function()
  local function as_user(text)
    if is_root then
      helper.shell(("chmod 711 %s/.. && chown -R nobody %s"):format(fixture.folder, fixture.folder))
    end
    return is_root and text:gsub("\nglobal\n", "%0  user nobody\n") or text
  end

  local function without_threads(text)
    local changed, count = as_user(text):gsub("\n  insecure%-fork%-wanted\n", "\n")
    assert.are.equal(1, count)
    return changed
  end

  it("refreshes in the background", function()
    start(as_user)
    await_start()
    assert.are.equal(200, (get("/lucid/users/me/profile")))
  end)

  it("says that it may start no thread, and sends nothing", function()
    start(without_threads)
    await_start()
    assert.are.equal(503, (get("/lucid/users/me/profile")))
    assert.is_true(helper.contains(log(), "insecure-fork-wanted"), log())
    assert.are.equal(0, fixture:posts())
  end)

  it("serves the token that lives, without a thread", function()
    fixture:store(1800)
    local posts = fixture:posts()
    start(without_threads)
    await_start()
    assert.are.equal(200, (get("/lucid/users/me/profile")))
    assert.are.equal(posts, fixture:posts())
  end)
end)
