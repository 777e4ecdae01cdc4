-- Refreshes inside nginx: ahead of need, seen by all workers at once, held up
-- by nobody and by nothing that a client does.

local socket = require("socket")

local nginx = require("spec.nginx.nginx")
local tokens = require("spec.tokens")

local fixture = nginx.fixture()

-- The answers of all workers to a request for the path, by their processes.
local function ask_all(path)
  local said, count = {}, 0
  nginx.eventually(function()
    for _, body in ipairs(fixture.server:get_several(path, 8)) do
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

describe("a refresh", function()
  it("begins ahead of the expiry, with no request", function()
    fixture.sandbox:settings({ lifetime = 4 })
    fixture:start({
      http = [[ init_worker_by_lua_block { require("lucidauth").token() } ]],
    })
    local grant = nginx.eventually(function()
      local present = fixture.sandbox:grant()
      return present.access_token and present
    end)
    fixture:await_posts(2)
    local counts = fixture.sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, counts.overlaps)
    assert.are_not.equal(grant.access_token, fixture.sandbox:grant().access_token)
    -- nobody has asked, and the token is there
    local _, body = fixture.server:get("/token")
    assert.is_true(fixture:is_token(body))
    fixture:assert_no_problems()
  end)

  it("ahead of the expiry is one worker's, and the others adopt what it brought", function()
    fixture.sandbox:settings({ lifetime = 3 })
    fixture:start({
      http = [[ init_worker_by_lua_block { require("lucidauth").token() } ]],
      server = [[ location /past { content_by_lua_block {
        local names = {}
        for i, event in ipairs(require("lucidauth").status().past) do names[i] = event.name end
        ngx.say(ngx.worker.pid(), " ", #names > 0 and table.concat(names, ",") or "none") } } ]],
    })
    fixture:await_posts(3)
    -- each of them saw the second token, one of them because it fetched it
    local refreshed, adopted = {}, {}
    nginx.eventually(function()
      for pid, said in pairs(ask_all("/past")) do
        for names in pairs(said) do
          local _, count = names:gsub("refreshed", "")
          refreshed[pid] = math.max(refreshed[pid] or 0, count)
          adopted[pid] = adopted[pid] or names:find("adopted") ~= nil or count > 1
        end
      end
      local all = true
      for pid in pairs(refreshed) do
        all = all and (adopted[pid] or refreshed[pid] > 0)
      end
      return all
    end, "each worker's second token")
    local counts = fixture.sandbox:counts()
    assert.are.equal(counts.token_requests, counts.rotations)
    assert.are.equal(0, counts.overlaps)
    assert.are.equal(0, counts.reuses)
    local sum = 0
    for _, count in pairs(refreshed) do
      sum = sum + count
    end
    assert.is_true(sum <= counts.rotations, sum)
    fixture:assert_no_problems()
  end)

  it("that fails is not asked for by a million calls", function()
    fixture:start({ workers = 1, server = [[
      location /million { content_by_lua_block {
        local lucid = require("lucidauth")
        local answers = {}
        for _ = 1, 1000000 do
          local token, _, code = lucid.token()
          answers[token and "token" or code] = true
        end
        for name in pairs(answers) do ngx.say(name) end
      } }
      location /reject { content_by_lua_block {
        ngx.say(tostring(require("lucidauth").reject(ngx.var.args))) } }
      location /many { content_by_lua_block {
        local lucid = require("lucidauth")
        local answers, threads = {}, {}
        for i = 1, 100 do
          threads[i] = ngx.thread.spawn(function()
            for _ = 1, 20 do
              local token, _, code = lucid.token()
              answers[token and "token" or code] = true
            end
          end)
        end
        for i = 1, 100 do ngx.thread.wait(threads[i]) end
        for name in pairs(answers) do ngx.say(name) end
      } }
    ]] })
    local answer = tokens.pair(fixture.sandbox)
    tokens.write(fixture.server.token_file, tokens.record(answer, 60))
    nginx.give(fixture.server.token_file)
    local outage = { kind = "answer", status = 503, headers = { ["Retry-After"] = "60" },
      times = "always" }
    fixture.sandbox:faults(outage)
    local _, body = fixture.server:get("/million")
    assert.are.equal("token\n", body)
    assert.are.equal(2, fixture:posts())

    -- nor without a token: those who would wait for one are told at once
    fixture.server:get("/reject?" .. answer.access_token)
    _, body = fixture.server:get("/many")
    assert.are.equal("server_error\n", body)
    assert.are.equal(2, fixture:posts())
  end)

  it("by one worker is what all of them hand out at once", function()
    fixture:start()
    local _, token = fixture.server:get("/token")
    ask_all("/both")
    for _ = 1, 5 do
      local before = fixture:posts()
      local _, new = fixture.server:get("/refresh")
      assert.are_not.equal(token, new)
      for pid, said in pairs(ask_all("/both")) do
        assert.is_nil(said[token:match("%S+")], pid)
      end
      assert.are.equal(before + 1, fixture:posts())
      token = new
    end
    fixture:assert_no_problems()
  end)

  it("by a plain script beside nginx is seen at once, and the other way round", function()
    fixture:start()
    local _, token = fixture.server:get("/token")
    ask_all("/both")
    local function script(what)
      return fixture:run_script(what, nginx.user)
    end
    assert.are.equal(token, script("token"))
    local new = script("refresh")
    for _, said in pairs(ask_all("/both")) do
      assert.is_true(said[new:match("%S+")])
    end
    _, new = fixture.server:get("/refresh")
    assert.are.equal(new, script("token"))
    assert.are.equal(3, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("that a script without the page wrote is seen within a second or two", function()
    fixture:start({ workers = 1 })
    fixture.server:get("/token")
    local answer = tokens.pair(fixture.sandbox)
    tokens.write(fixture.server.token_file .. ".new", tokens.record(answer, 3600))
    nginx.give(fixture.server.token_file .. ".new")
    os.rename(fixture.server.token_file .. ".new", fixture.server.token_file)
    nginx.eventually(function()
      local _, body = fixture.server:get("/token")
      return body == answer.access_token .. "\n"
    end)
    assert.are.equal(2, fixture:posts())
  end)

  it("that hangs holds up neither other locations nor those who can be served", function()
    local wait = 0.4
    fixture:start({
      init = ("lucid = require('lucidauth') lucid.configure({ refresh_wait = %g })"):format(wait),
    })
    local _, token = fixture.server:get("/token")
    ask_all("/both")
    fixture.sandbox:faults({ kind = "held", when = "before" })
    local refresh = fixture.server:send("/refresh")
    fixture:await_posts(2)
    for _ = 1, 4 do
      local several = {}
      for i = 1, 16 do
        several[i] = fixture.server:send(i % 2 == 0 and "/token" or "/other")
      end
      for i = 1, 16, 2 do
        local status, body = several[i]:receive()
        assert.are.equal(200, status)
        assert.are.equal("other", body)
      end
      for i = 2, 16, 2 do
        local status, body = several[i]:receive()
        assert.are.equal(200, status)
        assert.are.equal(token, body)
      end
    end
    assert.are.equal(1, fixture.sandbox:counts().rotations)
    fixture:release()
    local _, new = refresh:receive()
    assert.is_true(fixture:is_token(new))
    assert.are.equal(2, fixture:posts())
    assert.are.equal(0, fixture.sandbox:counts().reuses)
    fixture:assert_no_problems()
  end)

  it("that hangs is waited for with pauses that end with refresh_wait", function()
    fixture:start({ workers = 1, init = [[
      lucid = require('lucidauth') lucid.configure({ refresh_wait = 0.13 }) ]], server = [[
      location /pauses { content_by_lua_block {
        local sleep, me, slept, count = ngx.sleep, coroutine.running(), 0, 0
        function ngx.sleep(seconds)
          if coroutine.running() == me then
            slept, count = slept + seconds, count + 1
          end
          return sleep(seconds)
        end
        local token = lucid.token()
        ngx.sleep = sleep
        ngx.say(token, " ", count, " ", slept) } }
    ]] })
    local _, token = fixture.server:get("/token")
    fixture.sandbox:faults({ kind = "held", when = "before" })
    local refresh = fixture.server:send("/refresh")
    fixture:await_posts(2)
    local _, body = fixture.server:get("/pauses")
    local served, count, slept = body:match("^(%S+) (%d+) (%S+)\n$")
    assert.are.equal(token, served .. "\n")
    -- 1, 2, 4, 8, 16, 32, 50 and the rest, or fewer that took longer than asked;
    -- the next spec has the pauses themselves
    assert.is_true(tonumber(count) >= 1 and tonumber(slept) < 2 * 0.13, body)
    fixture:release()
    refresh:receive()
    fixture:assert_no_problems()
  end)

  it("is looked for in short pauses again once there may be an answer", function()
    fixture:start({ workers = 1, server = [[
      location /pauses { content_by_lua_block {
        local sleep, slept, pauses, looks = ngx.sleep, 0, {}, 0
        function ngx.sleep(seconds)
          slept = slept + seconds
          pauses[#pauses + 1] = ("%.0f"):format(seconds * 1000)
        end
        local token = require("lucidauth.nginx").obtain({ poll = function()
          looks = looks + 1
          if looks > 11 then return "landed" end
          local left = (slept < 0.02 and 0.02 or 30) - slept
          -- the last moment before it is no moment at all
          return nil, "under way", "not_ready", looks > 9 and 1e-9 or left
        end }, nil, false)
        ngx.sleep = sleep
        ngx.print(token, " ", table.concat(pauses, " ")) } }
    ]] })
    local _, body = fixture.server:get("/pauses")
    assert.are.equal("landed 1 2 4 8 5 1 2 4 1 1", body)
  end)

  it("that fails is covered up while the token lives, and told in the error log", function()
    fixture:start({ workers = 1 })
    local answer = tokens.pair(fixture.sandbox)
    tokens.write(fixture.server.token_file, tokens.record(answer, 60))
    nginx.give(fixture.server.token_file)
    fixture.sandbox:faults({ kind = "answer", status = 403, body = { error = "access_denied" },
      times = "always" })
    for _ = 1, 50 do
      local _, token = fixture.server:get("/token")
      assert.are.equal(answer.access_token .. "\n", token)
    end
    local warning = nginx.eventually(function()
      fixture.server:get("/token")
      return fixture.server:log():match("%[warn%][^\n]*")
    end)
    local part = "lucidauth: refresh_failed (account default): "
    assert.is_truthy(warning:find(part, 1, true), warning)
    assert.are.equal(2, fixture:posts())
    fixture:assert_no_problems("lucidauth: refresh_failed (account default)")
  end)
end)

describe("a client that hangs up", function()
  local HANG_UP = [[
    lua_check_client_abort on;
    location /refresh { content_by_lua_block { require("lucidauth").refresh() ngx.say("x") } }
    location /metrics { content_by_lua_block {
      collectgarbage() ngx.print(require("lucidauth").metrics()) } }
  ]]

  local function waiters()
    local _, body = fixture.server:get("/metrics")
    return tonumber(body:match('lucidauth_waiters{account="default"} (%d+)'))
  end

  it("cuts no refresh in half", function()
    fixture:start({ workers = 1, server = HANG_UP })
    fixture.server:get("/token")
    fixture.sandbox:faults({ kind = "held" })
    local refresh = fixture.server:send("/refresh")
    fixture:await_posts(2)
    assert.are.equal(1, waiters())
    refresh:close()
    nginx.eventually(function()
      return waiters() == 0
    end)
    fixture:release()
    fixture:await_token()
    local counts = fixture.sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(1, counts.introspections) -- the one before the start
    fixture:assert_no_problems()
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
    fixture:start({ workers = 1, init = STORAGE, server = HANG_UP .. [[
      location /record { content_by_lua_block {
        local record = records.default or {}
        ngx.say(record.refresh_token, " ", tostring(record.pending ~= nil), " ",
          tostring(held.default))
      } }
    ]] })
    local _, token = fixture.server:get("/token")
    assert.is_true(fixture:is_token(token), token)
    fixture.sandbox:faults({ kind = "held" })
    local refresh = fixture.server:send("/refresh")
    fixture:await_posts(2)
    refresh:close()
    -- the living one, after refresh_wait
    local _, body = fixture.server:get("/token")
    assert.are.equal(token, body)
    fixture:release()
    nginx.eventually(function()
      local _, record = fixture.server:get("/record")
      return record == fixture.sandbox:grant().refresh_token .. " false nil\n"
    end)
    _, body = fixture.server:get("/token")
    assert.is_true(fixture:is_token(body))
    local counts = fixture.sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(1, counts.introspections) -- the one before the start
    assert.are.equal(0, counts.reuses)
    nginx.eventually(function()
      return waiters() == 0
    end)
    fixture:assert_no_problems()
  end)

  it("at any moment costs nothing with a storage in Lua", function()
    fixture:start({ workers = 1, init = STORAGE, server = HANG_UP })
    for i = 0, 20 do
      local request = fixture.server:send("/refresh")
      socket.sleep(i * 0.008)
      request:close()
      local _, body = fixture.server:get("/token")
      assert.is_truthy(body:find("^oauth2%-a"), body)
    end
    fixture:await_token()
    local counts = fixture.sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(1, counts.introspections) -- the one before the start
    fixture:assert_no_problems()
  end)

  it("leaves a storage in Lua usable when its coroutine fails", function()
    local storage = [[
      records = {}
      lucid = require("lucidauth")
      lucid.configure({ storage = {
        load = function(account) return records[account] end,
        save = function(account, record) records[account] = record return true end,
      } })
    ]]
    fixture:start({ workers = 1, init = storage, server = HANG_UP .. [[
      location /fail { content_by_lua_block {
        local sleep = ngx.sleep
        ngx.sleep = function(...)
          if ngx.get_phase() == "timer" then ngx.sleep = sleep error("no more sleep") end
          return sleep(...)
        end
        ngx.say(select(3, lucid.refresh()))
      } }
    ]] })
    fixture:await_token()
    fixture.sandbox:faults({ { kind = "slow", when = "after", seconds = 0.2 } })
    local _, body = fixture.server:get("/fail")
    assert.are.equal("not_ready\n", body)
    fixture:await_token()
    local counts = fixture.sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(1, counts.introspections) -- the one before the start
    nginx.assert_contains(fixture.server:log(), "A refresh was broken off: ", "no more sleep")
    fixture:assert_no_problems("no more sleep")
  end)

  it("has no say in phases that may not yield, with a storage in Lua", function()
    fixture:start({ workers = 1, init = STORAGE, server = HANG_UP })
    local _, _, headers = fixture.server:get("/header")
    assert.is_truthy(headers["x-said"]:find("^not_ready"), headers["x-said"])
    nginx.eventually(function()
      local _, _, later = fixture.server:get("/header")
      return fixture:is_token(later["x-said"])
    end)
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("leaves a storage in Lua usable when there are too many timers", function()
    local full = "lua_max_pending_timers 1;"
    fixture:start({ workers = 1, init = STORAGE, http = full, server = HANG_UP .. [[
      location /busy { content_by_lua_block {
        local ok = ngx.timer.at(60, function() end) ngx.say(tostring(ok)) } }
    ]] })
    fixture.server:get("/busy")
    local _, _, headers = fixture.server:get("/header")
    assert.is_truthy(headers["x-said"]:find("^not_ready"), headers["x-said"])
    local _, body = fixture.server:get("/token")
    assert.is_true(fixture:is_token(body), body)
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("and a client closed in the middle of a flight do no harm", function()
    fixture:start({ workers = 1, init = STORAGE, server = HANG_UP .. [[
      location /close { content_by_lua_block { lucid.close() ngx.say("closed") } }
      location /own { content_by_lua_block { local own = require("lucidauth").new({ storage = {
          load = function() end, save = function() ngx.sleep(0.01) return true end } })
        ngx.thread.spawn(function() own:token() end)
        ngx.sleep(0.05)
        own:close()
        ngx.say(pcall(own.token, own))
      } }
    ]] })
    fixture.sandbox:settings({ latency = 0.3 })
    local _, body = fixture.server:get("/own")
    assert.is_truthy(body:find("^false.*this lucidauth client is closed"), body)
    assert.is_truthy(fixture.server:workers()[1])
    local pid = fixture.server:workers()[1]
    _, body = fixture.server:get("/token")
    assert.are.equal(pid, fixture.server:workers()[1])
    assert.is_truthy(body)
  end)
end)
