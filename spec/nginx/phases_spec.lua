-- In which phases of nginx a token can be had, and how long that takes.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")
local tokens = require("spec.tokens")

local fixture = nginx.fixture()

describe("phases that may yield", function()
  it("wait for a token, each one", function()
    fixture:start({
      server = [[
        location /set { set $t ""; rewrite_by_lua_block {
          ngx.var.t = said(require("lucidauth").token()) } return 200 $t; }
        location /rewrite { rewrite_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
        location /access { access_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
        location /content { content_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
        location /timer { content_by_lua_block {
          local token
          ngx.timer.at(0, function() token = said(require("lucidauth").refresh()) end)
          while not token do ngx.sleep(0.005) end
          ngx.say(token)
        } }
        location /coroutine { content_by_lua_block {
          local thread = ngx.thread.spawn(function()
            return coroutine.wrap(function() return said(require("lucidauth").refresh()) end)()
          end)
          local _, token = ngx.thread.wait(thread)
          ngx.say(token)
        } }
      ]],
    })
    for number, path in ipairs({ "/rewrite", "/access", "/content", "/timer", "/coroutine" }) do
      local status, body = fixture.server:get(path)
      assert.are.equal(200, status, path)
      assert.is_true(fixture:is_token(body), path .. ": " .. body)
      assert.are.equal(number, fixture:posts())
    end
    fixture:assert_no_problems()
  end)

  it("return one value, and three for a failure", function()
    fixture:start({
      env = { LUCID_REFRESH_TOKEN = false },
      server = [[ location / { content_by_lua_block {
        local lucid = require("lucidauth")
        ngx.say(select("#", lucid.token()), select("#", lucid.refresh()),
          select("#", lucid.authorization()), select("#", lucid.token()))
      } } ]],
    })
    local _, body = fixture.server:get("/")
    assert.are.equal("3333\n", body)
    fixture.server:quit()
    fixture:start({
      server = [[ location / { content_by_lua_block {
        local lucid = require("lucidauth")
        local token = lucid.token
        ngx.say(select("#", token()), select("#", token()), select("#", lucid.refresh()),
          select("#", lucid.authorization()), select("#", token()), select("#", lucid.token()))
      } } ]],
    })
    _, body = fixture.server:get("/")
    assert.are.equal("111111\n", body)
  end)

  for what, storage in pairs({
    ["the file"] = "nil",
    ["a storage in Lua"] = [[ {
      load = function() ngx.sleep(0.002) return kept end,
      save = function(_, record) ngx.sleep(0.002) kept = record end,
    } ]],
  }) do
    it("may be killed while they wait, with " .. what, function()
      fixture:start({ workers = 1, server = ([[
        location /kill { content_by_lua_block {
          local kept
          local client = require("lucidauth").new { storage = %s }
          for i = 1, 12 do
            local thread = ngx.thread.spawn(function() return client:refresh() end)
            ngx.sleep(0.001 * i)
            ngx.thread.kill(thread)
          end
          ngx.say(said(client:refresh()))
        } }
      ]]):format(storage) })
      local _, body = fixture.server:get("/kill")
      assert.is_true(fixture:is_token(body), body)
      assert.is_true(fixture:posts() > 1)
      assert.are.equal(0, fixture.sandbox:counts().reuses)
      assert.are.equal(0, fixture.sandbox:counts().overlaps)
      fixture:assert_no_problems()
    end)
  end

  it("go on side by side while a refresh is under way", function()
    fixture:start({
      workers = 1,
      server = [[
      ]],
    })
    fixture.sandbox:faults({ kind = "held", when = "before" })
    local waiting = {}
    for i = 1, 20 do
      waiting[i] = fixture.server:send("/token")
    end
    fixture:await_posts(1)
    for _ = 1, 20 do
      assert.are.equal(200, (fixture.server:get("/other")))
    end
    assert.are.equal(0, fixture.sandbox:counts().rotations)
    fixture:release()
    for _, request in ipairs(waiting) do
      local _, body = request:receive()
      assert.is_true(fixture:is_token(body), body)
    end
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems()
  end)
end)

describe("phases that may not yield", function()
  local HANDLERS = [[
    location /header_filter { return 200 "x"; header_filter_by_lua_block {
      ngx.header["x-said"] = said(require("lucidauth").token()) } }
    location /body_filter { return 200 "x";
      header_filter_by_lua_block { ngx.header.content_length = nil }
      body_filter_by_lua_block { if ngx.arg[1] == "x" then
        ngx.arg[1] = said(require("lucidauth").token()) end } }
    location /log { return 200 "x"; log_by_lua_block {
      ngx.log(ngx.NOTICE, "said ", said(require("lucidauth").token())) } }
    location /set { set_by_lua_block $said { return said(require("lucidauth").token()) }
      return 200 $said; }
  ]]

  local ASK = {
    header_filter = function()
      local _, _, headers = fixture.server:get("/header_filter")
      return headers["x-said"]
    end,
    body_filter = function()
      local _, body = fixture.server:get("/body_filter")
      return body
    end,
    set = function()
      local _, body = fixture.server:get("/set")
      return body
    end,
    log = function()
      local before = #fixture.server:log()
      fixture.server:get("/log")
      return nginx.eventually(function()
        return fixture.server:log():sub(before):match("said (.-) while logging")
      end)
    end,
  }

  for phase, ask in pairs(ASK) do
    it("say not_ready and have a token soon: " .. phase, function()
      fixture:start({ workers = 1, server = HANDLERS })
      local first = ask()
      assert.is_truthy(first:find("^not_ready: There is no token yet"), first)
      nginx.eventually(function()
        return fixture:is_token(ask())
      end)
      assert.are.equal(1, fixture:posts())
      fixture:assert_no_problems()
    end)
  end

  it("are served below nginx's own hooks, too", function()
    fixture:start({
      http = [[ upstream chosen { server 0.0.0.1; balancer_by_lua_block {
        ngx.log(ngx.NOTICE, "balancer said ", said(require("lucidauth").token()))
        require("ngx.balancer").set_current_peer("127.0.0.1", tonumber(ngx.var.server_port)) } } ]],
      server = [[ location /balanced { proxy_pass http://chosen/token; } ]],
    })
    local _, token = fixture.server:get("/token")
    local _, body = fixture.server:get("/balanced")
    assert.are.equal(token, body)
    nginx.assert_contains(fixture.server:log(), "balancer said " .. token:gsub("%s+$", ""))
    fixture:assert_no_problems()
  end)

  it("hand out the token that lives while the server hangs", function()
    fixture:start({ workers = 1, server = HANDLERS })
    local _, token = fixture.server:get("/token")
    fixture.sandbox:faults({ kind = "held", when = "before" })
    local refresh = fixture.server:send("/refresh")
    fixture:await_posts(2)
    for phase, ask in pairs(ASK) do
      assert.are.equal(token, ask() .. "\n", phase)
    end
    fixture:release()
    local _, new = refresh:receive()
    assert.is_true(fixture:is_token(new))
    fixture:assert_no_problems()
  end)

  it("warm up in init_worker without waiting", function()
    fixture.sandbox:settings({ latency = 0.3 })
    fixture:start({
      http = [[ init_worker_by_lua_block {
        ngx.log(ngx.NOTICE, "said ", said(require("lucidauth").token())) } ]],
      server = [[ location / { return 200 "x"; } ]],
    })
    fixture:await_posts(1)
    local _, body = fixture.server:get("/token")
    assert.is_true(fixture:is_token(body))
    local _, count = fixture.server:log():gsub("said not_ready", "")
    assert.are.equal(4, count)
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("have none in the master", function()
    fixture:start({
      init = [[
        local lucid = require("lucidauth")
        ngx.log(ngx.NOTICE, "first ", said(lucid.token()))
        ngx.log(ngx.NOTICE, "second ", said(lucid.refresh()))
        ngx.log(ngx.NOTICE, "third ", said(lucid.authorization()), lucid.status().state)
        lucid.configure({ storage = { load = function() end, save = function() end } })
        ngx.log(ngx.NOTICE, "fourth ", said(lucid.token()))
        lucid.close()
      ]],
      server = [[ location / { content_by_lua_block {
        ngx.say(said(require("lucidauth").token())) } } ]],
    })
    for _, name in ipairs({ "first", "second", "third", "fourth" }) do
      local said = name .. " not_ready: There is no token in init_by_lua"
      assert.is_truthy(fixture.server:log():find(said, 1, true), fixture.server:log())
    end
    local _, body = fixture.server:get("/")
    assert.is_true(fixture:is_token(body))
    fixture:assert_no_problems()
  end)
end)

-- A function in C stands between the request and the caller: nobody may yield.
describe("a call below C", function()
  local HANDLERS = [[
    location /required { content_by_lua_block { ngx.say(require("app")) } }
    location /replaced { content_by_lua_block {
      ngx.say((("x"):gsub("x", function() return said(new():token()) end))) } }
    location /sorted { content_by_lua_block {
      local authorization
      table.sort({ 1, 2 }, function(a, b)
        authorization = said(new():authorization())
        return a < b
      end)
      ngx.say((authorization:gsub("^Bearer ", ""))) } }
    location /written { content_by_lua_block {
      ngx.say(tostring(setmetatable({}, { __tostring = function()
        return said(new():token())
      end }))) } }
    location /refreshed { content_by_lua_block {
      ngx.say((("x"):gsub("x", function() return said(require("lucidauth").refresh()) end))) } }
    location /closed { content_by_lua_block {
      ngx.say((("x"):gsub("x", function() return tostring(require("lucidauth").close()) end))) } }
  ]]
  local INIT = [[
    new = require("lucidauth").new
    package.preload.app = function()
      return said(require("lucidauth").token())
    end
  ]]

  it("has the good token that is stored, at once", function()
    local record = tokens.record(tokens.pair(fixture.sandbox), 3000)
    local path = nginx.folder() .. "/token.json"
    tokens.write(path, record)
    nginx.give(path)
    fixture:start({
      workers = 1, init = INIT, server = HANDLERS, env = { LUCID_TOKEN_FILE = path },
    })
    for _, way in ipairs({ "required", "replaced", "sorted", "written" }) do
      local status, body = fixture.server:get("/" .. way)
      assert.are.equal(200, status, way)
      assert.are.equal(record.access_token .. "\n", body, way)
    end
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("is told so while there is none, and the next one works", function()
    fixture:start({ workers = 1, init = INIT, server = HANDLERS })
    local _, first = fixture.server:get("/required")
    nginx.assert_contains(first, "not_ready: There is no token yet")
    local _, token = fixture.server:get("/token")
    assert.is_true(fixture:is_token(token), token)
    for _, way in ipairs({ "replaced", "sorted", "written" }) do
      assert.are.equal(token, select(2, fixture.server:get("/" .. way)), way)
    end
    assert.are.equal(1, fixture:posts())
    local _, body = fixture.server:get("/refreshed")
    assert.is_truthy(body:find("^not_ready: "), body)
    fixture:await_posts(2)
    _, body = fixture.server:get("/closed")
    assert.are.equal("true\n", body)
    fixture:assert_no_problems()
  end)

  it("has a good token of a storage in Lua as soon as that has been asked", function()
    fixture:start({
      workers = 1,
      init = [[
        local record
        local client = require("lucidauth").new({ storage = {
          load = function() ngx.sleep(0.001) return record end,
          save = function(_, given) ngx.sleep(0.001) record = given end,
        } })
        function new() return client end
      ]],
      server = HANDLERS,
    })
    local _, body = fixture.server:get("/replaced")
    assert.is_truthy(body:find("^not_ready: "), body)
    nginx.eventually(function()
      return fixture:is_token(select(2, fixture.server:get("/replaced")))
    end)
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems()
  end)
end)

describe("the module", function()
  it("may be required and configured before the fork", function()
    local folder = nginx.folder()
    fixture:start({
      init = ([[
        lucid = require("lucidauth")
        token = lucid.token
        lucid.configure({ storage = { type = "file", directory = %q } })
        own = lucid.new({ storage = %q })
      ]]):format(folder .. "/many", folder .. "/one.json"),
      server = [[
        location /own { content_by_lua_block { ngx.say(said(own:token())) } }
        location /token { content_by_lua_block { ngx.say(said(token())) } }
        location /again { content_by_lua_block { ngx.say(said(lucid.token())) } }
        location /other { content_by_lua_block { ngx.say(said(lucid.token("anna"))) } }
      ]],
    })
    helper.run("mkdir " .. folder .. "/many")
    nginx.give(folder .. "/many")
    local _, token = fixture.server:get("/own")
    assert.is_true(fixture:is_token(token), token)
    for _ = 1, 20 do
      local _, same = fixture.server:get("/own")
      assert.are.equal(token, same)
    end
    assert.are.equal(1, fixture:posts())
    fixture.sandbox:reset()
    _, token = fixture.server:get("/token")
    assert.is_true(fixture:is_token(token), token)
    for _ = 1, 20 do
      local _, same = fixture.server:get("/again")
      assert.are.equal(token, same)
    end
    local _, body = fixture.server:get("/other")
    local none = 'config: There is no token yet for the account "anna"'
    assert.is_truthy(body:find(none, 1, true), body)
    fixture:assert_no_problems()
  end)

  if nginx.user then
    it("needs no Lua file any more that root alone can read", function()
      local folder, path = helper.tmpdir(), nginx.folder() .. "/token.json"
      local record = tokens.record(tokens.pair(fixture.sandbox), 3000)
      tokens.write(path, record)
      nginx.give(path)
      helper.shell(("cp -r %s/* %s && chmod -R go= %s"):format(nginx.modules(), folder, folder))
      fixture:start({
        env = { LUCID_TOKEN_FILE = path },
        init = ([[
          local folder = %q
          local function without(path, name)
            return (path:gsub("[^;]+", function(place)
              return io.open((place:gsub("%%?", name))) and "" or nil
            end))
          end
          package.path = folder .. "/lua/?.lua;" .. without(package.path, "lucidauth")
          package.cpath = folder .. "/lib/?.so;" .. without(package.cpath, "lucidauth/core")
          require("lucidauth")
        ]]):format(folder),
        server = [[
          location /own { content_by_lua_block {
            local client = require("lucidauth").new({ storage = {
              load = function() return nil, "no storage" end,
              save = function() end,
            } })
            ngx.say(said(client:token()), client:metrics()) } }
        ]],
      })
      local _, body = fixture.server:get("/token")
      assert.are.equal(record.access_token .. "\n", body)
      _, body = fixture.server:get("/own")
      nginx.assert_contains(body, "storage: ", "no storage", "lucidauth_unsaved")
      fixture:assert_no_problems()
    end)
  end

  it("works with lua_code_cache off", function()
    fixture:start({
      http = "lua_code_cache off;",
      server = [[
        location / { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
        location /header { return 200 "x"; header_filter_by_lua_block {
          ngx.header["x-said"] = said(require("lucidauth").token()) } }
      ]],
    })
    local _, token = fixture.server:get("/")
    assert.is_true(fixture:is_token(token))
    local several = {}
    for i = 1, 20 do
      several[i] = fixture.server:send(i % 2 == 0 and "/" or "/header")
    end
    for i = 1, 20 do
      local status, body, headers = several[i]:receive()
      assert.are.equal(200, status)
      if i % 2 == 0 then
        assert.are.equal(token, body)
      else
        assert.is_truthy(headers["x-said"]:find("^not_ready") or headers["x-said"] .. "\n" == token)
      end
    end
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems("lua_code_cache is off")
  end)

  it("loads libcurl at the first refresh, in the background", function()
    fixture:start({
      workers = 1,
      server = [[
        location / { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
        location /refresh { content_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
      ]],
    })
    fixture.server:get("/")
    fixture.server:reload()
    local function maps()
      return helper.read_file("/proc/" .. fixture.server:workers()[1] .. "/maps")
    end
    local _, body = fixture.server:get("/")
    assert.is_true(fixture:is_token(body))
    assert.is_truthy(maps():find("lucidauth/core.so", 1, true))
    assert.is_nil(maps():find("libcurl", 1, true))
    fixture.server:get("/refresh")
    assert.is_truthy(maps():find("libcurl", 1, true))
  end)
end)

describe("what a login gave", function()
  local STORE = [[ said(store(ngx.var[1], ngx.var.arg_answer)) ]]
  local KINDS = { "file", "own" }

  local function start()
    fixture:start({
      workers = 1,
      env = { LUCID_REFRESH_TOKEN = false },
      init = [[
        local lucid = require("lucidauth")
        local records = {}
        local own = lucid.new({ storage = {
          load = function(account) ngx.sleep(0.001) return records[account] end,
          save = function(account, record)
            ngx.sleep(0.001)
            records[account] = record
            return true
          end,
        } })
        function store(kind, answer)
          local stored, message, code
          if kind == "own" then
            stored, message, code = own:store(answer)
          else
            stored, message, code = lucid.store(answer)
          end
          return stored and "stored", message, code
        end
      ]],
      server = ([[
        location ~ ^/content/(.*)$ { content_by_lua_block { ngx.say(%s) } }
        location ~ ^/header/(.*)$ { return 200 "x"; header_filter_by_lua_block {
          ngx.header["x-said"] = %s } }
      ]]):format(STORE, STORE),
    })
  end

  it("is stored while other requests go on", function()
    start()
    for _, kind in ipairs(KINDS) do
      local before = fixture.sandbox:counts().introspections
      local _, body = fixture.server:get("/content/" .. kind .. "?answer=first-000")
      assert.are.equal("stored\n", body, kind)
      fixture.sandbox:faults({ kind = "held", when = "before", endpoint = "introspect" })
      local request = fixture.server:send("/content/" .. kind .. "?answer=second-000")
      nginx.eventually(function()
        return fixture.sandbox:counts().introspections > before or #fixture.sandbox:faults() == 0
      end)
      assert.are.equal(200, (fixture.server:get("/other")))
      fixture:release()
      _, body = request:receive()
      assert.are.equal("stored\n", body, kind)
    end
    assert.are.equal(0, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("is not_ready where nobody may wait, and the next call tells what came of it", function()
    start()
    for _, kind in ipairs(KINDS) do
      local function ask(answer)
        local _, _, headers = fixture.server:get("/header/" .. kind .. "?answer=" .. answer)
        return headers["x-said"]
      end
      local said = ask("first-000")
      assert.is_truthy(said:find("^not_ready: The login's answer is being stored"), said)
      nginx.eventually(function()
        said = ask("first-000")
        return not said:find("^not_ready: The login's answer is being stored")
      end)
      assert.are.equal("stored", said, kind)
      nginx.eventually(function()
        said = ask("Bearer")
        return not said:find("^not_ready")
      end)
      assert.is_truthy(said:find("^config: This is an authorization header"), said)
    end
    fixture:assert_no_problems()
  end)

  it("is none in the master", function()
    fixture:start({
      init = [[ ngx.log(ngx.NOTICE, "master ", said(require("lucidauth").store("first-000"))) ]],
    })
    assert.is_truthy(fixture.server:log():find("master not_ready: ", 1, true), fixture.server:log())
    assert.is_nil(fixture.server:log():find("There is no token", 1, true))
  end)
end)
