-- Workers that are replaced, killed or told to quit while a refresh is under
-- way: nothing is lost and nothing leaks.

local socket = require("socket")

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

local function is_token(text)
  return (text:gsub("%s+$", "")) == sandbox:grant().access_token
end

local SERVER = [[
  location /token { content_by_lua_block { ngx.say(said(require("lucidauth").token())) } }
  location /refresh { content_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } }
  location /pid { content_by_lua_block { ngx.say(ngx.worker.pid()) } }
  location /background { content_by_lua_block {
    ngx.timer.at(0, function() require("lucidauth").refresh() end) ngx.say(ngx.worker.pid()) } }
]]

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

-- Begins a refresh whose answer takes so long, and returns the worker.
local function begin_slow(seconds, when)
  server:get("/token")
  sandbox:faults({ kind = "slow", when = when or "after", seconds = seconds })
  local before = posts()
  local _, pid = server:get("/background")
  nginx.eventually(function()
    return posts() == before + 1
  end)
  return tonumber(pid)
end

local function works_again()
  nginx.eventually(function()
    local _, body = server:get("/token")
    return is_token(body)
  end, "a token that works")
  assert.are.equal(0, sandbox:counts().reuses)
end

describe("in the middle of a flight", function()
  it("a reload loses nothing", function()
    start({ server = SERVER })
    begin_slow(0.5)
    server:reload()
    works_again()
    local counts = sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(0, counts.introspections)
    assert.are.equal("", server:problems())
  end)

  it("a worker that is told to quit loses nothing", function()
    start({ server = SERVER })
    local pid = begin_slow(0.5)
    server:signal("QUIT", pid)
    nginx.eventually(function()
      return not nginx.is_there(pid)
    end)
    works_again()
    assert.are.equal(2, posts())
    assert.are.equal("", server:problems())
  end)

  it("nginx told to quit ends in good order", function()
    start({ server = SERVER })
    begin_slow(0.5)
    local file = server.token_file
    server:quit()
    local record = helper.read_file(file)
    assert.is_truthy(record:find(sandbox:grant().refresh_token, 1, true))
    assert.is_nil(record:find("pending", 1, true))
    assert.are.equal("", server:problems())
  end)

  it("nginx told to stop at once stores an answer that comes soon", function()
    start({ server = SERVER })
    begin_slow(0.3)
    local file = server.token_file
    server:stop()
    assert.is_truthy(helper.read_file(file):find(sandbox:grant().refresh_token, 1, true))
    assert.are.equal("", server:problems())
  end)

  it("a killed worker is replaced, and its refresh is settled", function()
    start({ server = SERVER })
    local pid = begin_slow(2, "before")
    server:signal("KILL", pid)
    nginx.eventually(function()
      return not nginx.is_there(pid)
    end)
    -- the others know that a refresh has begun, and take care of it
    nginx.eventually(function()
      local _, body = server:get("/token")
      return is_token(body) and sandbox:counts().introspections > 0
    end)
    works_again()
    nginx.eventually(function()
      return #server:workers() == 4
    end)
    assert.are.equal("", server:problems("exited on signal 9"))
  end)

  it("a worker that waits to try again is not waited for", function()
    start({ workers = 1, server = SERVER })
    sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "20" },
      times = "always" })
    local _, pid = server:get("/background")
    nginx.eventually(function()
      return posts() == 1
    end)
    socket.sleep(0.05)
    local began = socket.gettime()
    server:signal("TERM", tonumber(pid))
    nginx.eventually(function()
      return not nginx.is_there(tonumber(pid))
    end)
    assert.is_true(socket.gettime() - began < 1)
    sandbox:clear_faults()
    works_again()
    assert.are.equal("", server:problems())
  end)

  it("a reload loses nothing with a storage in Lua", function()
    local path = nginx.folder() .. "/record"
    start({
      init = ([[
        local cjson = require("cjson")
        local path = %q
        require("lucidauth").configure({ storage = {
          load = function()
            local file = io.open(path)
            if not file then return nil end
            local text = file:read("*a")
            file:close()
            return cjson.decode(text)
          end,
          save = function(_, record)
            ngx.sleep(0.01)
            local file = assert(io.open(path .. ".new", "w"))
            file:write(cjson.encode(record))
            file:close()
            return os.rename(path .. ".new", path)
          end,
        } })
      ]]):format(path),
      workers = 1,
      server = SERVER,
    })
    begin_slow(0.5)
    server:reload()
    works_again()
    local counts = sandbox:counts()
    assert.are.equal(2, counts.token_requests)
    assert.are.equal(0, counts.introspections)
    assert.are.equal("", server:problems())
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
    "http://127.0.0.1:" .. server.port .. "/api" })
end

describe("twenty reloads under load", function()
  it("lose no token and leak nothing", function()
    sandbox:settings({ lifetime = 2 })
    start({ server = SERVER .. [[
      location /api { content_by_lua_block {
        local token, message = require("lucidauth").token()
        ngx.status = token and 200 or 500
        ngx.say(token or message)
      } }
    ]] })
    local load = load_of(12)
    local descriptors_of, memory_of = {}, {}
    for i = 1, 20 do
      server:reload()
      local status, body = server:get("/api")
      assert.are.equal(200, status, body)
      descriptors_of[i], memory_of[i] = descriptors(server.pid), kilobytes(server.pid)
    end
    load:kill("INT")
    local out = load:wait()
    assert.is_truthy(out:find("requests in", 1, true), out)
    assert.is_nil(out:find("Non-2xx", 1, true), out)
    works_again()
    local counts = sandbox:counts()
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, counts.overlaps)
    assert.are.equal(0, counts.introspections)
    assert.are.equal(counts.token_requests, counts.rotations)
    assert.are.equal(descriptors_of[3], descriptors_of[20])
    assert.is_true(memory_of[20] < memory_of[3] * 1.1 + 512,
      "the master grew: " .. table.concat(memory_of, " "))
    assert.are.equal("", server:problems())
  end)
end)

describe("many refreshes in one worker", function()
  it("leak neither descriptors nor memory", function()
    start({ workers = 1, server = SERVER .. [[
      location /many { content_by_lua_block {
        for i = 1, 50 do assert(require("lucidauth").refresh()) end
        collectgarbage()
        ngx.say("done")
      } }
    ]] })
    local pid = server:workers()[1]
    server:get("/many")
    server:get("/many")
    local before, memory = descriptors(pid), kilobytes(pid)
    for _ = 1, 6 do
      local _, body = server:get("/many")
      assert.are.equal("done\n", body)
    end
    assert.are.equal(before, descriptors(pid))
    assert.is_true(kilobytes(pid) < memory + 512, memory .. " -> " .. kilobytes(pid))
    assert.are.equal(0, sandbox:counts().reuses)
    assert.are.equal("", server:problems())
  end)

  it("nor do many Lua states", function()
    start({ workers = 1, http = "lua_code_cache off;", server = SERVER })
    local pid = server:workers()[1]
    for _ = 1, 50 do
      server:get("/token")
    end
    local before, memory = descriptors(pid), kilobytes(pid)
    for _ = 1, 200 do
      local _, body = server:get("/token")
      assert.is_true(is_token(body))
    end
    assert.are.equal(before, descriptors(pid))
    assert.is_true(kilobytes(pid) < memory + 1024, memory .. " -> " .. kilobytes(pid))
    assert.are.equal(1, posts())
    assert.are.equal("", server:problems("lua_code_cache is off"))
  end)
end)
