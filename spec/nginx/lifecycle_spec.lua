-- Workers that are replaced, killed or told to quit while a refresh is under
-- way: nothing is lost and nothing leaks.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local fixture = nginx.fixture()

local function works_again()
  fixture:await_token()
  assert.are.equal(0, fixture.sandbox:counts().reuses)
end

describe("in the middle of a flight", function()
  it("a reload loses nothing", function()
    fixture:start()
    fixture:begin_slow(0.5)
    fixture.server:reload()
    works_again()
    local counts = fixture.sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(1, counts.introspections) -- the one before the start
    fixture:assert_no_problems()
  end)

  it("a worker that is told to quit loses nothing", function()
    fixture:start()
    local pid = fixture:begin_slow(0.5)
    fixture.server:signal("QUIT", pid)
    nginx.eventually(function()
      return not nginx.is_there(pid)
    end)
    works_again()
    assert.are.equal(2, fixture:posts())
    fixture:assert_no_problems()
  end)

  it("nginx told to quit ends in good order", function()
    fixture:start()
    fixture:begin_slow(0.5)
    local file = fixture.server.token_file
    fixture.server:quit()
    local record = helper.read_file(file)
    assert.is_truthy(record:find(fixture.sandbox:grant().refresh_token, 1, true))
    assert.is_nil(record:find("pending", 1, true))
    fixture:assert_no_problems()
  end)

  it("nginx told to stop at once stores an answer that comes soon", function()
    fixture:start()
    fixture:begin_slow(0.3)
    local file = fixture.server.token_file
    fixture.server:stop()
    assert.is_truthy(helper.read_file(file):find(fixture.sandbox:grant().refresh_token, 1, true))
    fixture:assert_no_problems()
  end)

  it("a killed worker is replaced, and its refresh is settled", function()
    fixture:start()
    local pid = fixture:begin_with({ kind = "hang" })
    fixture.server:signal("KILL", pid)
    nginx.eventually(function()
      return not nginx.is_there(pid)
    end)
    -- the others know that a refresh has begun, and take care of it
    nginx.eventually(function()
      local _, body = fixture.server:get("/token")
      return fixture:is_token(body) and fixture.sandbox:counts().introspections > 0
    end)
    works_again()
    nginx.eventually(function()
      return #fixture.server:workers() == 4
    end)
    fixture:assert_no_problems("exited on signal 9")
  end)

  it("a worker that waits to try again is not waited for", function()
    fixture:start({ workers = 1 })
    fixture.sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "20" },
      times = "always" })
    local _, pid = fixture.server:get("/background")
    fixture:await_posts(1)
    fixture.server:signal("TERM", tonumber(pid))
    nginx.eventually(function()
      return not nginx.is_there(tonumber(pid))
    end)
    assert.are.equal(1, fixture:posts())
    fixture.sandbox:clear_faults()
    works_again()
    fixture:assert_no_problems()
  end)
end)

-- Functions over a file that wait where they may.
local STORAGE = [[
  local cjson = require("cjson")
  local path = %q
  local waits = { content = true, timer = true, access = true }
  local function pause() if waits[ngx.get_phase()] then ngx.sleep(0.01) end end
  require("lucidauth").configure({ storage = {
    load = function()
      pause()
      local file = io.open(path)
      if not file then return nil end
      local text = file:read("*a")
      file:close()
      return cjson.decode(text)
    end,
    save = function(_, record)
      pause()
      local file = assert(io.open(path .. ".new", "w"))
      file:write(cjson.encode(record))
      file:close()
      return os.rename(path .. ".new", path)
    end,
    lock = function()
      pause()
      local file = io.open(path .. ".held")
      if file then file:close() return false end
      assert(io.open(path .. ".held", "w")):close()
      return true
    end,
    unlock = function() os.remove(path .. ".held") end,
  } })
]]

describe("in the middle of a flight with a storage in Lua", function()
  local path

  before_each(function()
    path = nginx.folder() .. "/record"
    fixture:start({ init = STORAGE:format(path), workers = 1 })
  end)

  local function assert_saved()
    local record = helper.read_file(path)
    assert.is_truthy(record:find(fixture.sandbox:grant().refresh_token, 1, true), record)
    assert.is_nil(record:find("pending", 1, true))
    assert.is_nil(helper.read_file(path .. ".held"))
    assert.are.equal(2, fixture:posts())
    assert.are.equal(1, fixture.sandbox:counts().introspections) -- the one before the start
  end

  it("a reload loses nothing", function()
    fixture:begin_slow(0.5)
    fixture.server:reload()
    assert_saved()
    works_again()
    fixture:assert_no_problems()
  end)

  it("nginx told to quit saves the answer", function()
    fixture:begin_slow(0.5)
    fixture.server:quit()
    assert_saved()
    fixture:assert_no_problems()
  end)

  it("nginx told to stop at once saves an answer that comes soon", function()
    fixture:begin_slow(0.3)
    fixture.server:stop()
    assert_saved()
    fixture:assert_no_problems()
  end)

  it("a worker that waits to try again is not waited for", function()
    fixture.sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "20" },
      times = "always" })
    fixture.server:get("/background")
    fixture:await_posts(1)
    fixture.server:quit()
    assert.are.equal(1, fixture:posts())
    assert.is_nil(helper.read_file(path .. ".held"))
    fixture:assert_no_problems()
  end)
end)

describe("a storage in Lua whose functions must wait", function()
  it("cannot save when nginx is told to stop at once: the loss is named", function()
    local path = nginx.folder() .. "/record"
    local must_wait = STORAGE:format(path):gsub("if waits%[.-%] then (.-) end", "%1")
    fixture:start({ init = must_wait, workers = 1 })
    -- a request that is gone must not be taken for one that is there
    fixture.server:get("/header")
    fixture:await_token()
    fixture:begin_slow(0.3)
    fixture.server:get("/header")
    fixture.server:stop()
    fixture:assert_no_problems("could not be saved by a process that ends")
    nginx.assert_contains(fixture.server:log(), "[error]", "(account default)",
      "function save failed")
    assert.is_truthy(helper.read_file(path):find("pending", 1, true))
    fixture.server:assert_sound()

    fixture:start({ init = must_wait, workers = 1 })
    local _, body = fixture.server:get("/token")
    assert.is_truthy(body:find("^lost_rotation: "), body)
    assert.are.equal(2, fixture:posts())
    assert.are.equal(2, fixture.sandbox:counts().introspections) -- the one before the start
  end)
end)

local function descriptors(pid)
  local pipe = io.popen(("ls /proc/%d/fd | wc -l"):format(pid))
  local count = tonumber((pipe:read("*a")))
  pipe:close()
  return count
end

-- Freed memory stays with a sanitizer for a while.
local function kilobytes(pid)
  local status = helper.read_file("/proc/" .. pid .. "/status")
  return nginx.runtime and 0 or tonumber(status:match("VmRSS:%s*(%d+)"))
end

local function load_of(seconds)
  return helper.start({ "wrk", "-t1", "-c8", "-d" .. seconds .. "s",
    "http://127.0.0.1:" .. fixture.server.port .. "/api" })
end

describe("twenty reloads under load", function()
  it("lose no token and leak nothing", function()
    fixture.sandbox:settings({ lifetime = 2 })
    fixture:start({ server = [[
      location /api { content_by_lua_block {
        local token, message = require("lucidauth").token()
        ngx.status = token and 200 or 500
        ngx.say(token or message)
      } }
    ]] })
    local load = load_of(12)
    local descriptors_of, memory_of = {}, {}
    for i = 1, 20 do
      fixture.server:reload()
      local status, body = fixture.server:get("/api")
      assert.are.equal(200, status, body)
      descriptors_of[i] = descriptors(fixture.server.pid)
      memory_of[i] = kilobytes(fixture.server.pid)
    end
    load:kill("INT")
    local out = load:wait()
    assert.is_truthy(out:find("requests in", 1, true), out)
    assert.is_nil(out:find("Non-2xx", 1, true), out)
    works_again()
    local counts = fixture.sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, counts.overlaps)
    assert.are.equal(1, counts.introspections) -- the one before the start
    assert.are.equal(counts.token_requests, counts.rotations)
    assert.are.equal(descriptors_of[3], descriptors_of[20])
    assert.is_true(memory_of[20] < memory_of[3] * 1.1 + 512,
      "the master grew: " .. table.concat(memory_of, " "))
    fixture:assert_no_problems()
  end)
end)

describe("many refreshes in one worker", function()
  it("leak neither descriptors nor memory", function()
    fixture:start({ workers = 1, server = [[
      location /many { content_by_lua_block {
        for i = 1, 50 do assert(require("lucidauth").refresh()) end
        collectgarbage()
        ngx.say("done")
      } }
    ]] })
    local pid = fixture.server:workers()[1]
    fixture.server:get("/many")
    fixture.server:get("/many")
    local before, memory = descriptors(pid), kilobytes(pid)
    for _ = 1, 6 do
      local _, body = fixture.server:get("/many")
      assert.are.equal("done\n", body)
    end
    assert.are.equal(before, descriptors(pid))
    assert.is_true(kilobytes(pid) < memory + 512, memory .. " -> " .. kilobytes(pid))
    assert.are.equal(0, fixture.sandbox:counts().reuses)
    fixture:assert_no_problems()
  end)

  it("nor do many Lua states", function()
    fixture:start({ workers = 1, http = "lua_code_cache off;" })
    local pid = fixture.server:workers()[1]
    for _ = 1, 50 do
      fixture.server:get("/token")
    end
    local before, memory = descriptors(pid), kilobytes(pid)
    for _ = 1, 200 do
      local _, body = fixture.server:get("/token")
      assert.is_true(fixture:is_token(body))
    end
    assert.are.equal(before, descriptors(pid))
    assert.is_true(kilobytes(pid) < memory + 1024, memory .. " -> " .. kilobytes(pid))
    assert.are.equal(1, fixture:posts())
    fixture:assert_no_problems("lua_code_cache is off")
  end)
end)
