-- A client that has been told how its program waits: whoever waits for a token
-- yields to the event loop, and the loop goes on. Tried in real ones.

local socket = require("socket")

local core = require("lucidauth.core")
local helper = require("spec.helper")
local loop = require("lucidauth.loop")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)

-- Debian has copas for the older Luas alone, and it runs in each.
local function with_copas()
  local path, http = package.path, package.loaded["socket.http"]
  package.path = path .. ";/usr/share/lua/5.1/?.lua"
  package.loaded["socket.http"] = nil -- it insists on being there first
  local copas = require("copas")
  package.path, package.loaded["socket.http"] = path, http
  return copas
end

-- Older versions of copas have no timers: what sleeps waits for a datagram.
local function timers_for(copas)
  local sleepers = {}
  local function sleep(seconds)
    local ear, mouth = assert(socket.udp()), assert(socket.udp())
    assert(ear:setsockname("127.0.0.1", 0))
    assert(mouth:setpeername(ear:getsockname()))
    ear:settimeout(0)
    sleepers[mouth] = socket.gettime() + seconds
    copas.receivefrom(ear)
    ear:close()
    mouth:close()
  end
  local function wake()
    for mouth, due in pairs(sleepers) do
      if due <= socket.gettime() then
        sleepers[mouth] = nil
        mouth:send("up")
      end
    end
  end
  return sleep, wake
end

local function nothing() end

local function in_copas()
  local copas = with_copas()
  local sleep, wake = copas.sleep, nothing
  if not sleep then
    sleep, wake = timers_for(copas)
  end
  return sleep, function(tasks)
    local left = #tasks
    for _, task in ipairs(tasks) do
      copas.addthread(function()
        task()
        left = left - 1
      end)
    end
    while left > 0 do
      copas.step(0.001)
      wake()
    end
  end
end

local function in_luv()
  local uv = require("luv")
  local function sleep(seconds)
    local thread, timer = coroutine.running(), uv.new_timer()
    timer:start(math.ceil(seconds * 1000), 0, function()
      timer:close()
      assert(coroutine.resume(thread))
    end)
    coroutine.yield()
  end
  return sleep, function(tasks)
    for _, task in ipairs(tasks) do
      assert(coroutine.resume(coroutine.create(task)))
    end
    uv.run()
  end
end

local function in_cqueues()
  local cqueues = require("cqueues")
  return cqueues.sleep, function(tasks)
    local queue = cqueues.new()
    for _, task in ipairs(tasks) do
      queue:wrap(task)
    end
    assert(queue:loop())
  end
end

-- Another timer of the loop, which lets the server answer once it has ticked so
-- often while the request hangs.
local function ticker(sleep, ticks)
  return function()
    repeat
      sleep(0.001)
    until fixture:posts() > 0
    for _ = 1, ticks do
      sleep(0.001)
    end
    fixture.sandbox:clear_faults()
  end
end

local function hang()
  fixture.sandbox:faults({ kind = "held", when = "before", endpoint = "token" })
end

for name, in_loop in pairs({ copas = in_copas, luv = in_luv, cqueues = in_cqueues }) do
  describe("in " .. name, function()
    local sleep, run

    setup(function()
      sleep, run = in_loop()
    end)

    it("a refresh that hangs holds up nothing but those who wait for it", function()
      local client = fixture:client({ sleep = sleep })
      local got, done = {}, 0
      local function ask(method)
        return function()
          local text = assert(client[method](client))
          got[#got + 1] = text
        end
      end
      hang()
      run({
        ask("token"), ask("authorization"), ask("token"),
        function()
          ticker(sleep, 20)()
          done = #got
        end,
      })
      assert.are.equal(0, done)
      assert.are.equal(1, fixture:posts())
      local token = fixture.sandbox:grant().access_token
      table.sort(got)
      assert.are.same({ "Bearer " .. token, token, token }, got)
      assert.are.equal(token, client:token())
    end)

    it("refresh() and the module's own client wait so, too", function()
      lucid.configure(fixture:options({ sleep = sleep }))
      local first, second, header
      run({ function()
        first = assert(lucid.token())
        header = lucid.authorization()
        assert(lucid.reject(first))
        second = assert(lucid.refresh())
      end })
      assert.are.equal("Bearer " .. first, header)
      assert.are_not.equal(first, second)
      assert.are.equal(second, lucid.token())
    end)

    it("errors travel", function()
      local client = fixture:client({ sleep = sleep })
      fixture.sandbox:revoke_all()
      local token, message, code
      run({ function()
        token, message, code = client:token()
      end })
      fixture:assert_failure("invalid_grant", token, message, code)
    end)

    it("close() waits for a refresh by yielding", function()
      local client = fixture:client({ sleep = sleep })
      local closed, token
      hang()
      run({
        function() token = client:token() end,
        function()
          repeat
            sleep(0.001)
          until fixture:posts() > 0
          closed = client:close()
        end,
        ticker(sleep, 5),
      })
      assert.is_true(closed)
      assert.are.equal(fixture.sandbox:grant().access_token, token)
    end)

    it("what a login gave is stored by yielding, also by a storage in Lua that waits", function()
      local record
      local own = { load = function()
        sleep(0.001)
        return record
      end, save = function(_, new)
        sleep(0.001)
        record = new
        return true
      end }
      for _, storage in ipairs({ fixture.path, own }) do
        local client = fixture:client({ sleep = sleep, storage = storage })
        local answer = tokens.pair(fixture.sandbox)
        local yielded, results = 0, {}
        run({ function()
          results = { client:store(answer) }
          results.yielded = yielded
        end, function()
          for _ = 1, 3 do
            sleep(0.001)
            yielded = yielded + 1
          end
        end })
        assert.is_true(results[1], results[2])
        assert.is_true(results.yielded > 0)
        assert.are.equal(answer.access_token, client:token())
      end
    end)

    it("a storage in Lua may wait, and a request for it is the background's", function()
      local record
      local client = fixture:client({ sleep = sleep, storage = {
        load = function()
          sleep(0.001)
          return record
        end,
        save = function(_, new)
          sleep(0.001)
          record = new
          return true
        end,
      } })
      local got = {}
      local function ask()
        local token = assert(client:token())
        got[#got + 1] = token
      end
      hang()
      run({ ask, ask, ticker(sleep, 20) })
      local token = fixture.sandbox:grant().access_token
      assert.are.same({ token, token }, got)
      assert.are.equal(1, fixture:posts())
    end)
  end)
end

describe("where nobody may yield", function()
  local function sleep()
    error("this sleeps")
  end

  -- Calls it in the main program, and below a function in C within a coroutine.
  local function in_every_such_place(ask)
    ask()
    local thread = coroutine.create(function()
      ("x"):gsub("x", function() ask() end)
    end)
    assert(coroutine.resume(thread))
    assert.are.equal("dead", coroutine.status(thread))
  end

  it("a token that is stored comes at once", function()
    local record = fixture:store(1800)
    local posts = fixture:posts()
    in_every_such_place(function()
      local client = fixture:client({ sleep = sleep })
      assert.are.equal(record.access_token, client:token())
      assert.are.equal("Bearer " .. record.access_token, client:authorization())
    end)
    assert.are.equal(posts, fixture:posts())
  end)

  it("what a login gave is stored meanwhile, and a later call tells of it", function()
    local client = fixture:client({ sleep = sleep })
    local stored, message, code = client:store("first-000")
    fixture:assert_failure("not_ready", stored, message, code)
    assert.is_truthy(message:find("being stored", 1, true), message)
    helper.eventually(function()
      stored, message, code = client:store("first-000")
      return code ~= "not_ready"
    end)
    assert.is_true(stored, message)
  end)

  it("nor can a storage in Lua that may wait", function()
    local client = fixture:client({ sleep = sleep, storage = {
      load = function() end,
      save = function()
        error("it saves")
      end,
    } })
    for _ = 1, 2 do
      local stored, message, code = client:store("first-000")
      fixture:assert_failure("not_ready", stored, message, code)
      assert.is_truthy(message:find("was not stored", 1, true), message)
    end
  end)

  it("a refresh begins, and not_ready is the answer", function()
    local client = fixture:client({ sleep = sleep })
    hang()
    in_every_such_place(function()
      fixture:assert_failure("not_ready", client:token())
      fixture:assert_failure("not_ready", client:refresh())
    end)
    helper.eventually(function()
      return fixture:posts() == 1
    end)
    fixture.sandbox:clear_faults()
    helper.eventually(function()
      return client:token()
    end)
  end)

  it("a storage in Lua is read, if that takes no yield, and not_ready is the answer", function()
    local record = tokens.record(tokens.pair(fixture.sandbox), 1800)
    local saves, posts = 0, fixture:posts()
    local function client_with(load)
      return fixture:client({ sleep = sleep, storage = {
        load = load,
        save = function() saves = saves + 1 return true end,
      } })
    end
    in_every_such_place(function()
      local client = client_with(function() return record end)
      assert.are.equal(record.access_token, client:token())
      fixture:assert_failure("not_ready", client:refresh())
      fixture:assert_failure("not_ready", client_with(nothing):token())
      fixture:assert_failure("not_ready", client_with(coroutine.yield):token())
    end)
    assert.are.equal(0, saves)
    assert.are.equal(posts, fixture:posts())
  end)
end)

-- A stopped process finds that all time is over when it goes on, though nobody
-- has had any.
describe("a process that was stopped", function()
  local now, ran, at, stopped

  -- The loop's clock is ours; in its `stopped`th sleep the process is stopped.
  local function sleep(seconds)
    at = at + 1
    now = now + (at == stopped and 3600 or seconds)
  end

  before_each(function()
    now, at = 1000, 0
    local clock = core.clock_of_waits()
    ran = core.ran
    core.ran = function(within)
      return clock(within, now)
    end
  end)

  after_each(function()
    core.ran = ran
  end)

  it("lets those who wait look before it closes", function()
    local function looks_until_closed()
      local looks = 0
      loop.by(sleep).close_when_all_is_over(function() return true end, function()
        looks = looks + 1
        return true
      end, nothing)
      return looks
    end
    stopped = 0
    local looks = looks_until_closed()
    assert.is_true(looks > 3)
    for when = 1, looks - 1 do
      stopped = at + when
      assert.are.equal(looks, looks_until_closed())
    end
  end)

  it("waits for a token in nginx as long as if it had run", function()
    local functions = {}
    _G.ngx = {
      worker = { exiting = nothing },
      get_phase = function() return "content" end,
      sleep = sleep,
      timer = { at = function(_, run) functions[#functions + 1] = run return true end },
    }
    package.loaded["lucidauth.nginx"] = nil
    local can_yield = core.can_yield
    core.can_yield = function() return true end
    finally(function()
      _G.ngx, package.loaded["lucidauth.nginx"], core.can_yield = nil, nil, can_yield
    end)
    local host = require("lucidauth.nginx")
    local function wait()
      local first = at
      local started, token = host.apart(nothing, function() return "old" end, 2)
      assert.is_true(started)
      assert.are.equal("old", token)
      return at - first
    end
    stopped = 0
    local sleeps = wait()
    for when = 1, sleeps - 2, 10 do
      stopped = at + when
      local taken = wait()
      assert.is_true(math.abs(taken - sleeps) <= 1, taken)
    end
  end)
end)

it("what `sleep` raises reaches the caller, and the next one gets the token", function()
  local client = fixture:client({ sleep = function() error("no sleep tonight", 0) end })
  hang()
  local thread = coroutine.create(function()
    return client:token()
  end)
  local ok, message = coroutine.resume(thread)
  assert.is_false(ok)
  assert.are.equal("no sleep tonight", message)
  fixture.sandbox:clear_faults()
  local token = helper.eventually(function()
    return client:token()
  end)
  assert.are.equal(fixture.sandbox:grant().access_token, token)
end)
