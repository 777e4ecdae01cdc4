-- A client that is closed, or replaced by configure, in the middle of a refresh:
-- the worker goes on, and nothing is lost.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local fixture = nginx.fixture()

local LOCATIONS = [[
  location /close { content_by_lua_block {
    local ok = require("lucidauth").close() ngx.say(tostring(ok)) } }
  location /configure { content_by_lua_block {
    local ok = require("lucidauth").configure({ refresh_wait = 1 }) ngx.say(tostring(ok)) } }
  location /close_in_filter { return 200 "x"; header_filter_by_lua_block {
    ngx.header["x-said"] = tostring(require("lucidauth").close()) } }
]]

-- Over this worker's memory; each client finds the same records.
local STORAGE = [[
  local records = {}
  saved = {}
  require("lucidauth").configure({ storage = {
    load = function(account) return records[account] end,
    save = function(account, record)
      if ngx.get_phase() ~= "init" then ngx.sleep(0.02) end
      records[account] = record
      saved.refresh_token = record.refresh_token
      return true
    end,
  } })
]]

-- Others are served while the refresh is still under way.
local function assert_worker_is_free()
  for _ = 1, 10 do
    local _, body = fixture.server:get("/other")
    assert.are.equal("other", body)
  end
  assert.are.equal(1, fixture.sandbox:counts().rotations)
end

local function assert_nothing_lost(posts)
  local counts = fixture.sandbox:counts()
  assert.are.equal(posts, counts.token_requests)
  assert.are.equal(0, counts.reuses)
  assert.are.equal(1, counts.introspections) -- the one before the start
  fixture:assert_no_problems()
end

local function assert_stored()
  local record = helper.read_file(fixture.server.token_file)
  assert.is_truthy(record:find(fixture.sandbox:grant().refresh_token, 1, true))
  assert.is_nil(record:find("pending", 1, true))
end

for _, what in ipairs({ "/close", "/configure" }) do
  it(what .. " waits for a refresh without holding the worker up", function()
    fixture:start({ workers = 1, server = LOCATIONS })
    fixture:begin_held()
    local closing = fixture.server:send(what)
    assert_worker_is_free()
    fixture:release()
    local status, body = closing:receive()
    assert.are.equal(200, status)
    assert.are.equal("true\n", body)
    assert.are.equal(2, fixture.sandbox:counts().rotations)
    assert_stored()
    fixture:await_token()
    assert_nothing_lost(2)
  end)
end

it("those who wait for a token get it from the client that is being closed", function()
  fixture:start({ workers = 1, server = LOCATIONS })
  fixture.sandbox:faults({ kind = "held", when = "before" })
  local waiting = {}
  for i = 1, 10 do
    waiting[i] = fixture.server:send("/token")
  end
  fixture:await_posts(1)
  local closing = fixture.server:send("/close")
  fixture:release()
  for i = 1, 10 do
    local _, body = waiting[i]:receive()
    assert.is_true(fixture:is_token(body), body)
  end
  assert.are.equal(200, (closing:receive()))
  assert_nothing_lost(1)
end)

it("what lands while the client is being left is handed out all the same", function()
  fixture:start({ workers = 1, server = [[
    location /left { content_by_lua_block {
      local nginx, landed = require("lucidauth.nginx"), false
      local core = {}
      function core.poll()
        if landed then return "landed" end
        return nil, "under way", "not_ready", 1
      end
      function core.leave()
        landed = true
        return true
      end
      nginx.leaving[core] = true
      local token = nginx.obtain(core, nil, false)
      ngx.print(token) } }
  ]] })
  assert.are.equal("landed", (select(2, fixture.server:get("/left"))))
end)

it("a phase that may not wait closes later", function()
  fixture:start({ workers = 1, server = LOCATIONS })
  fixture:begin_held()
  local _, _, headers = fixture.server:get("/close_in_filter")
  assert.are.equal("true", headers["x-said"])
  assert_worker_is_free()
  fixture:release()
  nginx.eventually(function()
    return fixture.sandbox:counts().rotations == 2
  end)
  fixture:await_token()
  assert_stored()
  assert_nothing_lost(2)
end)

local function assert_retry_is_not_waited_for()
  fixture.sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "20" },
    times = "always" })
  fixture.server:get("/background")
  fixture:await_posts(1)
  local _, body = fixture.server:get("/close")
  assert.are.equal("true\n", body)
  assert.are.equal(1, fixture:posts())
end

it("a refresh that only waits to try again is not waited for", function()
  fixture:start({ workers = 1, server = LOCATIONS })
  assert_retry_is_not_waited_for()
  fixture.sandbox:clear_faults()
  fixture:await_token()
  assert.are.equal(0, fixture.sandbox:counts().reuses)
  fixture:assert_no_problems()
end)

describe("with a storage in Lua", function()
  local SAVED = [[ location /saved { content_by_lua_block { ngx.say(saved.refresh_token) } } ]]

  before_each(function()
    fixture:start({ workers = 1, init = STORAGE, server = LOCATIONS .. SAVED })
  end)

  it("a refresh is waited for without holding the worker up", function()
    fixture:begin_held()
    local closing = fixture.server:send("/close")
    assert_worker_is_free()
    fixture:release()
    local _, body = closing:receive()
    assert.are.equal("true\n", body)
    _, body = fixture.server:get("/saved")
    assert.are.equal(fixture.sandbox:grant().refresh_token .. "\n", body)
    assert_nothing_lost(2)
  end)

  it("a refresh that only waits to try again is not waited for", function()
    assert_retry_is_not_waited_for()
    fixture:assert_no_problems()
  end)
end)

it("a client stays open as long as a storage in Lua does not take its tokens", function()
  fixture:start({ workers = 1, init = [[
    local records, saves = {}, 0
    broken = true
    require("lucidauth").configure({ storage = {
      load = function(account) return records[account] end,
      save = function(account, record)
        saves = saves + 1
        if ngx.get_phase() ~= "init" then ngx.sleep(0.01) end
        if saves > 1 and broken then return nil, "out of order" end
        records[account] = record
        return true
      end,
    } })
  ]], server = [[
    location /close { content_by_lua_block {
      local closed, message, code = require("lucidauth").close()
      ngx.say(tostring(closed), " ", tostring(code), " ", tostring(message)) } }
    location /mend { content_by_lua_block { broken = false ngx.say("mended") } }
  ]] })
  local _, token = fixture.server:get("/token")
  assert.is_true(fixture:is_token(token), token)
  for _ = 1, 2 do
    local _, said = fixture.server:get("/close")
    assert.is_truthy(said:find("^nil storage .*out of order"), said)
    assert.are.equal(token, select(2, fixture.server:get("/token")))
  end
  fixture.server:get("/mend")
  local _, said = fixture.server:get("/close")
  assert.are.equal("true nil nil\n", said)
  assert.are.equal(1, fixture:posts())
  assert.are.equal(1, fixture.sandbox:counts().introspections) -- the one before the start
  fixture:assert_no_problems("out of order")
end)
