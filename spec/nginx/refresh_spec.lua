-- Refreshes inside nginx: ahead of need, seen by all workers at once, held up
-- by nobody and by nothing that a client does.

local socket = require("socket")

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")
local tokens = require("spec.tokens")

local sandbox, server

local function start(options)
  options.sandbox = sandbox
  server = nginx.start(options)
  return server
end

local function posts()
  return sandbox:counts().token_requests
end

local function is_token(text)
  return (text:gsub("%s+$", "")) == sandbox:grant().access_token
end

local TOKEN = [[
  location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
  location /refresh { content_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
  location /pid { content_by_lua_block { ngx.say(ngx.worker.pid()) } }
  location /both { content_by_lua_block {
    ngx.say(ngx.worker.pid(), " ", said(require("lucidauth").token())) } }
  location /other { return 200 "other"; }
]]

-- What each worker says to a request for the path, by its process.
local function ask_all(path)
  local said, count = {}, 0
  nginx.eventually(function()
    local several = {}
    for i = 1, 8 do
      several[i] = server:send(path)
    end
    for i = 1, 8 do
      local _, body = several[i]:receive()
      local pid, text = body:match("^(%d+) (%S+)")
      assert(pid, body)
      count = count + (said[pid] and 0 or 1)
      said[pid] = said[pid] or {}
      said[pid][text] = true
    end
    return count == 4
  end, "an answer by each worker")
  return said
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

describe("a refresh", function()
  it("begins ahead of the expiry, with no request", function()
    sandbox:settings({ lifetime = 4 })
    start({
      http = [[ init_worker_by_lua_block { require("lucidauth").token() } ]],
      server = TOKEN,
    })
    local grant = nginx.eventually(function()
      local present = sandbox:grant()
      return present.access_token and present
    end)
    nginx.eventually(function()
      return posts() == 2
    end)
    local counts = sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, counts.overlaps)
    assert.are_not.equal(grant.access_token, sandbox:grant().access_token)
    -- nobody has asked, and the token is there
    local _, body, _, seconds = server:get("/token")
    assert.is_true(is_token(body))
    assert.is_true(seconds < 0.1)
    assert.are.equal("", server:problems())
  end)

  it("by one worker is what all of them hand out at once", function()
    start({ server = TOKEN })
    local _, token = server:get("/token")
    ask_all("/both")
    for _ = 1, 5 do
      local before = posts()
      local _, new = server:get("/refresh")
      assert.are_not.equal(token, new)
      for pid, said in pairs(ask_all("/both")) do
        assert.is_nil(said[token:match("%S+")], pid)
      end
      assert.are.equal(before + 1, posts())
      token = new
    end
    assert.are.equal("", server:problems())
  end)

  it("by a plain script beside nginx is seen at once, and the other way round", function()
    start({ server = TOKEN })
    local _, token = server:get("/token")
    ask_all("/both")
    local env = {
      LUCID_TOKEN_FILE = server.token_file,
      LUA_PATH = nginx.modules() .. "/lua/?.lua;;",
      LUA_CPATH = nginx.modules() .. "/lib/?.so;;",
      LD_PRELOAD = nginx.runtime,
    }
    for name, value in pairs(sandbox.env) do
      env[name] = value
    end
    local code = [[ print(assert(require("lucidauth").%s())) ]]
    local as = nginx.user and ("setpriv --reuid %s --clear-groups "):format(nginx.user) or ""
    local run = ("exec %s%s -e "):format(as, helper.interpreter)
    local function script(what)
      local out, err, status = helper.run(run .. helper.quote(code:format(what)), env)
      assert(status == 0, err)
      return out
    end
    assert.are.equal(token, script("token"))
    local new = script("refresh")
    for _, said in pairs(ask_all("/both")) do
      assert.is_true(said[new:match("%S+")])
    end
    _, new = server:get("/refresh")
    assert.are.equal(new, script("token"))
    assert.are.equal(3, posts())
    assert.are.equal("", server:problems())
  end)

  it("that a script without the page wrote is seen within a second or two", function()
    start({ workers = 1, server = TOKEN })
    server:get("/token")
    local answer = tokens.pair(sandbox)
    tokens.write(server.token_file .. ".new", tokens.record(answer, 3600))
    nginx.give(server.token_file .. ".new")
    os.rename(server.token_file .. ".new", server.token_file)
    nginx.eventually(function()
      local _, body = server:get("/token")
      return body == answer.access_token .. "\n"
    end)
    assert.are.equal(2, posts())
  end)

  it("that hangs holds up neither other locations nor those who can be served", function()
    local wait = 0.5
    start({
      init = ("lucid = require('lucidauth') lucid.configure({ refresh_wait = %g })"):format(wait),
      server = TOKEN,
    })
    local _, token = server:get("/token")
    ask_all("/both")
    sandbox:faults({ kind = "slow", when = "before", seconds = 2 })
    local refresh = server:send("/refresh")
    nginx.eventually(function()
      return posts() == 2
    end)
    local longest, served, began = 0, 0, socket.gettime()
    while socket.gettime() - began < 1.2 do
      local several = {}
      for i = 1, 16 do
        several[i] = server:send(i % 2 == 0 and "/token" or "/other")
      end
      for i = 1, 16 do
        local status, body, _, seconds = several[i]:receive()
        assert.are.equal(200, status)
        assert.are.equal(i % 2 == 0 and token or "other", body)
        served = served + 1
        longest = math.max(longest, seconds)
      end
    end
    assert.is_true(longest < wait + 0.2, "longest: " .. longest)
    assert.is_true(served > 32, served)
    local _, new = refresh:receive()
    assert.is_true(is_token(new))
    assert.are.equal(2, posts())
    assert.are.equal(0, sandbox:counts().reuses)
    assert.are.equal("", server:problems())
  end)

  it("that fails is covered up while the token lives, and told in the error log", function()
    start({ workers = 1, server = TOKEN })
    local answer = tokens.pair(sandbox)
    tokens.write(server.token_file, tokens.record(answer, 60))
    nginx.give(server.token_file)
    sandbox:faults({ kind = "answer", status = 403, body = { error = "access_denied" },
      times = "always" })
    for _ = 1, 50 do
      local _, token = server:get("/token")
      assert.are.equal(answer.access_token .. "\n", token)
    end
    local warning = nginx.eventually(function()
      server:get("/token")
      return server:log():match("%[warn%][^\n]*")
    end)
    local part = "lucidauth: refresh_failed (account default): "
    assert.is_truthy(warning:find(part, 1, true), warning)
    assert.are.equal(2, posts())
    assert.are.equal("", server:problems("lucidauth: refresh_failed (account default)"))
  end)
end)

describe("a client that hangs up", function()
  local HANG_UP = [[
    lua_check_client_abort on;
    location /refresh { content_by_lua_block { require("lucidauth").refresh() ngx.say("x") } }
    location /metrics { content_by_lua_block {
      collectgarbage() ngx.print(require("lucidauth").metrics()) } }
    location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
  ]]

  local function waiters()
    local _, body = server:get("/metrics")
    return tonumber(body:match('lucidauth_waiters{account="default"} (%d+)'))
  end

  it("cuts no refresh in half", function()
    start({ workers = 1, server = HANG_UP })
    server:get("/token")
    sandbox:faults({ kind = "slow", when = "after", seconds = 0.5 })
    local refresh = server:send("/refresh")
    nginx.eventually(function()
      return posts() == 2
    end)
    assert.are.equal(1, waiters())
    refresh:close()
    nginx.eventually(function()
      return waiters() == 0
    end)
    nginx.eventually(function()
      local _, body = server:get("/token")
      return is_token(body)
    end)
    local counts = sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(0, counts.introspections)
    assert.are.equal("", server:problems())
  end)

  -- Functions that yield, over a table in this worker's memory.
  local STORAGE = [[
    records, held, fail = {}, {}, nil
    local function pause() if ngx.get_phase() ~= "init" then ngx.sleep(0.02) end end
    lucid = require("lucidauth")
    lucid.configure({ refresh_wait = 0.2, storage = {
      load = function(account) pause() return records[account] end,
      save = function(account, record) pause() records[account] = record return true end,
      lock = function(account)
        pause()
        if held[account] then return false end
        held[account] = true
        return true
      end,
      unlock = function(account) pause() held[account] = nil end,
    } })
  ]]

  it("cuts none in half with a storage in Lua either", function()
    start({ workers = 1, init = STORAGE, server = HANG_UP .. [[
      location /record { content_by_lua_block {
        local record = records.default or {}
        ngx.say(record.refresh_token, " ", tostring(record.pending ~= nil), " ",
          tostring(held.default))
      } }
    ]] })
    local _, token = server:get("/token")
    assert.is_true(is_token(token), token)
    sandbox:faults({ { kind = "slow", when = "after", seconds = 0.5 } })
    local refresh = server:send("/refresh")
    nginx.eventually(function()
      return posts() == 2
    end)
    refresh:close()
    -- the living one, after refresh_wait
    local _, body, _, seconds = server:get("/token")
    assert.are.equal(token, body)
    assert.is_true(seconds < 0.4, seconds)
    nginx.eventually(function()
      local _, record = server:get("/record")
      return record == sandbox:grant().refresh_token .. " false nil\n"
    end)
    _, body = server:get("/token")
    assert.is_true(is_token(body))
    local counts = sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(0, counts.introspections)
    assert.are.equal(0, counts.reuses)
    nginx.eventually(function()
      return waiters() == 0
    end)
    assert.are.equal("", server:problems())
  end)

  it("at any moment costs nothing with a storage in Lua", function()
    start({ workers = 1, init = STORAGE, server = HANG_UP })
    for i = 0, 20 do
      local request = server:send("/refresh")
      socket.sleep(i * 0.008)
      request:close()
      local _, body = server:get("/token")
      assert.is_truthy(body:find("^oauth2%-a"), body)
    end
    nginx.eventually(function()
      local _, body = server:get("/token")
      return is_token(body)
    end)
    local counts = sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, counts.introspections)
    assert.are.equal("", server:problems())
  end)

  it("has no say in phases that may not yield, with a storage in Lua", function()
    start({ workers = 1, init = STORAGE, server = HANG_UP .. [[
      location /header { return 200 "x"; header_filter_by_lua_block {
        ngx.header["x-said"] = said(require("lucidauth").token()) } }
    ]] })
    local _, _, headers = server:get("/header")
    assert.is_truthy(headers["x-said"]:find("^not_ready"), headers["x-said"])
    nginx.eventually(function()
      local _, _, later = server:get("/header")
      return is_token(later["x-said"])
    end)
    assert.are.equal(1, posts())
    assert.are.equal("", server:problems())
  end)

  it("leaves a storage in Lua usable when there are too many timers", function()
    start({ workers = 1, init = STORAGE, http = "lua_max_pending_timers 1;", server = HANG_UP .. [[
      location /busy { content_by_lua_block {
        local ok = ngx.timer.at(60, function() end) ngx.say(tostring(ok)) } }
      location /header { return 200 "x"; header_filter_by_lua_block {
        ngx.header["x-said"] = said(require("lucidauth").token()) } }
    ]] })
    server:get("/busy")
    local _, _, headers = server:get("/header")
    assert.is_truthy(headers["x-said"]:find("^not_ready"), headers["x-said"])
    local _, body = server:get("/token")
    assert.is_true(is_token(body), body)
    assert.are.equal(1, posts())
    assert.are.equal("", server:problems())
  end)

  it("and a client closed in the middle of a flight do no harm", function()
    start({ workers = 1, init = STORAGE, server = HANG_UP .. [[
      location /close { content_by_lua_block { lucid.close() ngx.say("closed") } }
      location /own { content_by_lua_block { local own = require("lucidauth").new({ storage = {
          load = function() end, save = function() ngx.sleep(0.01) return true end } })
        ngx.thread.spawn(function() own:token() end)
        ngx.sleep(0.05)
        own:close()
        ngx.say(pcall(own.token, own))
      } }
    ]] })
    sandbox:settings({ latency = 0.3 })
    local _, body = server:get("/own")
    assert.is_truthy(body:find("^false.*this lucidauth client is closed"), body)
    assert.is_truthy(server:workers()[1])
    local pid = server:workers()[1]
    _, body = server:get("/token")
    assert.are.equal(pid, server:workers()[1])
    assert.is_truthy(body)
  end)
end)
