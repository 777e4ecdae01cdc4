-- Workers that are replaced, killed or told to quit while a refresh is under
-- way: nothing is lost and nothing leaks.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local stage = nginx.stage()

local function works_again()
  stage:await_token()
  assert.are.equal(0, stage.sandbox:counts().reuses)
end

describe("in the middle of a flight", function()
  it("a reload loses nothing", function()
    stage:start()
    stage:begin_slow(0.5)
    stage.server:reload()
    works_again()
    local counts = stage.sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(1, counts.introspections) -- the one before the start
    stage:assert_no_problems()
  end)

  it("a worker that is told to quit loses nothing", function()
    stage:start()
    local pid = stage:begin_slow(0.5)
    stage.server:signal("QUIT", pid)
    nginx.eventually(function()
      return not nginx.is_there(pid)
    end)
    works_again()
    assert.are.equal(2, stage:posts())
    stage:assert_no_problems()
  end)

  it("nginx told to quit ends in good order", function()
    stage:start()
    stage:begin_slow(0.5)
    local file = stage.server.token_file
    stage.server:quit()
    local record = helper.read_file(file)
    assert.is_truthy(record:find(stage.sandbox:grant().refresh_token, 1, true))
    assert.is_nil(record:find("pending", 1, true))
    stage:assert_no_problems()
  end)

  it("nginx told to stop at once stores an answer that comes soon", function()
    stage:start()
    stage:begin_slow(0.3)
    local file = stage.server.token_file
    stage.server:stop()
    assert.is_truthy(helper.read_file(file):find(stage.sandbox:grant().refresh_token, 1, true))
    stage:assert_no_problems()
  end)

  it("a killed worker is replaced, and its refresh is settled", function()
    stage:start()
    local pid = stage:begin_with({ kind = "hang" })
    stage.server:signal("KILL", pid)
    nginx.eventually(function()
      return not nginx.is_there(pid)
    end)
    -- the others know that a refresh has begun, and take care of it
    nginx.eventually(function()
      local _, body = stage.server:get("/token")
      return stage:is_token(body) and stage.sandbox:counts().introspections > 0
    end)
    works_again()
    nginx.eventually(function()
      return #stage.server:workers() == 4
    end)
    stage:assert_no_problems("exited on signal 9")
  end)

  it("a worker that waits to try again is not waited for", function()
    stage:start({ workers = 1 })
    stage.sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "20" },
      times = "always" })
    local _, pid = stage.server:get("/background")
    stage:await_posts(1)
    stage.server:signal("TERM", tonumber(pid))
    nginx.eventually(function()
      return not nginx.is_there(tonumber(pid))
    end)
    assert.are.equal(1, stage:posts())
    stage.sandbox:clear_faults()
    works_again()
    stage:assert_no_problems()
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
    stage:start({ init = STORAGE:format(path), workers = 1 })
  end)

  local function assert_saved()
    local record = helper.read_file(path)
    assert.is_truthy(record:find(stage.sandbox:grant().refresh_token, 1, true), record)
    assert.is_nil(record:find("pending", 1, true))
    assert.is_nil(helper.read_file(path .. ".held"))
    assert.are.equal(2, stage:posts())
    assert.are.equal(1, stage.sandbox:counts().introspections) -- the one before the start
  end

  it("a reload loses nothing", function()
    stage:begin_slow(0.5)
    stage.server:reload()
    assert_saved()
    works_again()
    stage:assert_no_problems()
  end)

  it("nginx told to quit saves the answer", function()
    stage:begin_slow(0.5)
    stage.server:quit()
    assert_saved()
    stage:assert_no_problems()
  end)

  it("nginx told to stop at once saves an answer that comes soon", function()
    stage:begin_slow(0.3)
    stage.server:stop()
    assert_saved()
    stage:assert_no_problems()
  end)

  it("a worker that waits to try again is not waited for", function()
    stage.sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "20" },
      times = "always" })
    stage.server:get("/background")
    stage:await_posts(1)
    stage.server:quit()
    assert.are.equal(1, stage:posts())
    assert.is_nil(helper.read_file(path .. ".held"))
    stage:assert_no_problems()
  end)
end)

describe("a storage in Lua whose functions must wait", function()
  it("cannot save when nginx is told to stop at once: the loss is named", function()
    local path = nginx.folder() .. "/record"
    local must_wait = STORAGE:format(path):gsub("if waits%[.-%] then (.-) end", "%1")
    stage:start({ init = must_wait, workers = 1 })
    -- a request that is gone must not be taken for one that is there
    stage.server:get("/header")
    stage:await_token()
    stage:begin_slow(0.3)
    stage.server:get("/header")
    stage.server:stop()
    stage:assert_no_problems("could not be saved by a process that ends")
    nginx.assert_contains(stage.server:log(), "[error]", "(account default)",
      "function save failed")
    assert.is_truthy(helper.read_file(path):find("pending", 1, true))
    stage.server:assert_sound()

    stage:start({ init = must_wait, workers = 1 })
    local _, body = stage.server:get("/token")
    assert.is_truthy(body:find("^lost_rotation: "), body)
    assert.are.equal(2, stage:posts())
    assert.are.equal(2, stage.sandbox:counts().introspections) -- the one before the start
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
    "http://127.0.0.1:" .. stage.server.port .. "/api" })
end

describe("twenty reloads under load", function()
  it("lose no token and leak nothing", function()
    stage.sandbox:settings({ lifetime = 2 })
    stage:start({ server = [[
      location /api { content_by_lua_block {
        local token, message = require("lucidauth").token()
        ngx.status = token and 200 or 500
        ngx.say(token or message)
      } }
    ]] })
    local load = load_of(12)
    local descriptors_of, memory_of = {}, {}
    for i = 1, 20 do
      stage.server:reload()
      local status, body = stage.server:get("/api")
      assert.are.equal(200, status, body)
      descriptors_of[i], memory_of[i] = descriptors(stage.server.pid), kilobytes(stage.server.pid)
    end
    load:kill("INT")
    local out = load:wait()
    assert.is_truthy(out:find("requests in", 1, true), out)
    assert.is_nil(out:find("Non-2xx", 1, true), out)
    works_again()
    local counts = stage.sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, counts.overlaps)
    assert.are.equal(1, counts.introspections) -- the one before the start
    assert.are.equal(counts.token_requests, counts.rotations)
    assert.are.equal(descriptors_of[3], descriptors_of[20])
    assert.is_true(memory_of[20] < memory_of[3] * 1.1 + 512,
      "the master grew: " .. table.concat(memory_of, " "))
    stage:assert_no_problems()
  end)
end)

describe("many refreshes in one worker", function()
  it("leak neither descriptors nor memory", function()
    stage:start({ workers = 1, server = [[
      location /many { content_by_lua_block {
        for i = 1, 50 do assert(require("lucidauth").refresh()) end
        collectgarbage()
        ngx.say("done")
      } }
    ]] })
    local pid = stage.server:workers()[1]
    stage.server:get("/many")
    stage.server:get("/many")
    local before, memory = descriptors(pid), kilobytes(pid)
    for _ = 1, 6 do
      local _, body = stage.server:get("/many")
      assert.are.equal("done\n", body)
    end
    assert.are.equal(before, descriptors(pid))
    assert.is_true(kilobytes(pid) < memory + 512, memory .. " -> " .. kilobytes(pid))
    assert.are.equal(0, stage.sandbox:counts().reuses)
    stage:assert_no_problems()
  end)

  it("nor do many Lua states", function()
    stage:start({ workers = 1, http = "lua_code_cache off;" })
    local pid = stage.server:workers()[1]
    for _ = 1, 50 do
      stage.server:get("/token")
    end
    local before, memory = descriptors(pid), kilobytes(pid)
    for _ = 1, 200 do
      local _, body = stage.server:get("/token")
      assert.is_true(stage:is_token(body))
    end
    assert.are.equal(before, descriptors(pid))
    assert.is_true(kilobytes(pid) < memory + 1024, memory .. " -> " .. kilobytes(pid))
    assert.are.equal(1, stage:posts())
    stage:assert_no_problems("lua_code_cache is off")
  end)
end)
