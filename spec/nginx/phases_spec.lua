-- In which phases of nginx a token can be had, and how long that takes.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local sandbox, server

local function start(options)
  options.sandbox = sandbox
  server = nginx.start(options)
  return server
end

local function posts()
  return sandbox:counts().token_requests
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
    server:quit()
  end
end)

local function is_token(text)
  return (text:gsub("%s+$", "")) == sandbox:grant().access_token
end

describe("phases that may yield", function()
  it("wait for a token, each one", function()
    start({
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
      local status, body = server:get(path)
      assert.are.equal(200, status, path)
      assert.is_true(is_token(body), path .. ": " .. body)
      assert.are.equal(number, posts())
    end
    assert.are.equal("", server:problems())
  end)

  it("return one value, and three for a failure", function()
    start({
      env = { LUCID_REFRESH_TOKEN = false },
      server = [[ location / { content_by_lua_block {
        local lucid = require("lucidauth")
        ngx.say(select("#", lucid.token()), select("#", lucid.refresh()),
          select("#", lucid.authorization()), select("#", lucid.token()))
      } } ]],
    })
    local _, body = server:get("/")
    assert.are.equal("3333\n", body)
    server:quit()
    start({
      server = [[ location / { content_by_lua_block {
        local lucid = require("lucidauth")
        local token = lucid.token
        ngx.say(select("#", token()), select("#", token()), select("#", lucid.refresh()),
          select("#", lucid.authorization()), select("#", token()), select("#", lucid.token()))
      } } ]],
    })
    _, body = server:get("/")
    assert.are.equal("111111\n", body)
  end)

  it("go on side by side while a refresh is under way", function()
    start({
      workers = 1,
      server = [[
        location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
        location /other { return 200 "other"; }
      ]],
    })
    sandbox:settings({ latency = 0.5 })
    local waiting = {}
    for i = 1, 20 do
      waiting[i] = server:send("/token")
    end
    nginx.eventually(function()
      return posts() == 1
    end)
    for _ = 1, 20 do
      local status, _, _, seconds = server:get("/other")
      assert.are.equal(200, status)
      assert.is_true(seconds < 0.2, "another location took " .. seconds)
    end
    for _, request in ipairs(waiting) do
      local _, body = request:receive()
      assert.is_true(is_token(body), body)
    end
    assert.are.equal(1, posts())
    assert.are.equal("", server:problems())
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
    location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
  ]]

  local ASK = {
    header_filter = function()
      local _, _, headers = server:get("/header_filter")
      return headers["x-said"]
    end,
    body_filter = function()
      local _, body = server:get("/body_filter")
      return body
    end,
    set = function()
      local _, body = server:get("/set")
      return body
    end,
    log = function()
      local before = #server:log()
      server:get("/log")
      return nginx.eventually(function()
        return server:log():sub(before):match("said (.-) while logging")
      end)
    end,
  }

  for phase, ask in pairs(ASK) do
    it("say not_ready and have a token soon: " .. phase, function()
      start({ workers = 1, server = HANDLERS })
      local first = ask()
      assert.is_truthy(first:find("^not_ready: There is no token yet"), first)
      nginx.eventually(function()
        return is_token(ask())
      end)
      assert.are.equal(1, posts())
      assert.are.equal("", server:problems())
    end)
  end

  it("hand out the token that lives while the server hangs", function()
    start({ workers = 1, server = HANDLERS .. [[
      location /refresh { content_by_lua_block {
        ngx.say(said(require("lucidauth").refresh())) } } ]] })
    local _, token = server:get("/token")
    sandbox:faults({ kind = "slow", when = "before", seconds = 1 })
    local refresh = server:send("/refresh")
    nginx.eventually(function()
      return posts() == 2
    end)
    for phase, ask in pairs(ASK) do
      assert.are.equal(token, ask() .. "\n", phase)
    end
    local _, new = refresh:receive()
    assert.is_true(is_token(new))
    assert.are.equal("", server:problems())
  end)

  it("warm up in init_worker without waiting", function()
    sandbox:settings({ latency = 0.3 })
    start({
      http = [[ init_worker_by_lua_block {
        ngx.log(ngx.NOTICE, "said ", said(require("lucidauth").token())) } ]],
      server = [[ location / { return 200 "x"; }
        location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } } ]],
    })
    nginx.eventually(function()
      return posts() == 1
    end)
    local _, body = server:get("/token")
    assert.is_true(is_token(body))
    local _, count = server:log():gsub("said not_ready", "")
    assert.are.equal(4, count)
    assert.are.equal(1, posts())
    assert.are.equal("", server:problems())
  end)

  it("have none in the master", function()
    start({
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
      assert.is_truthy(server:log():find(said, 1, true), server:log())
    end
    local _, body = server:get("/")
    assert.is_true(is_token(body))
    assert.are.equal("", server:problems())
  end)
end)

describe("the module", function()
  it("may be required and configured before the fork", function()
    local folder = nginx.folder()
    start({
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
    local _, token = server:get("/own")
    assert.is_true(is_token(token), token)
    for _ = 1, 20 do
      local _, same = server:get("/own")
      assert.are.equal(token, same)
    end
    assert.are.equal(1, posts())
    sandbox:reset()
    _, token = server:get("/token")
    assert.is_true(is_token(token), token)
    for _ = 1, 20 do
      local _, same = server:get("/again")
      assert.are.equal(token, same)
    end
    local _, body = server:get("/other")
    local none = 'config: There is no token yet for the account "anna"'
    assert.is_truthy(body:find(none, 1, true), body)
    assert.are.equal("", server:problems())
  end)

  it("works with lua_code_cache off", function()
    start({
      http = "lua_code_cache off;",
      server = [[
        location / { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
        location /header { return 200 "x"; header_filter_by_lua_block {
          ngx.header["x-said"] = said(require("lucidauth").token()) } }
      ]],
    })
    local _, token = server:get("/")
    assert.is_true(is_token(token))
    local several = {}
    for i = 1, 20 do
      several[i] = server:send(i % 2 == 0 and "/" or "/header")
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
    assert.are.equal(1, posts())
    assert.are.equal("", server:problems("lua_code_cache is off"))
  end)

  it("loads libcurl at the first refresh, in the background", function()
    start({
      workers = 1,
      server = [[
        location / { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
        location /refresh { content_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
      ]],
    })
    server:get("/")
    server:reload()
    local function maps()
      return helper.read_file("/proc/" .. server:workers()[1] .. "/maps")
    end
    local _, body = server:get("/")
    assert.is_true(is_token(body))
    assert.is_truthy(maps():find("lucidauth/core.so", 1, true))
    assert.is_nil(maps():find("libcurl", 1, true))
    server:get("/refresh")
    assert.is_truthy(maps():find("libcurl", 1, true))
  end)
end)
