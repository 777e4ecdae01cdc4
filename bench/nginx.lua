--- What lucidauth costs inside nginx, as ratios within one run. bench/run runs
--- it, with --short unless told otherwise.

local socket = require("socket")

local front = require("spec.relay")
local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")
local tokens = require("spec.tokens")

local short = arg[1] == "--short"
local here = arg[0]:gsub("[^/]*$", "")

local ROUNDS = short and 5 or 15
local EXPIRIES = short and 4 or 20
local REQUESTS = short and 100000 or 1000000

-- Rows --------------------------------------------------------------------

local rows = { { "what", "measured", "reference", "ratio", "limit", "" } }

-- Without `ok`, for the record only.
local function add(what, measured, reference, ratio, limit, ok)
  local verdict = ok == nil and "" or ok and "ok" or "over"
  rows[#rows + 1] = { what, measured, reference, ratio, limit, verdict }
end

local function print_table()
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, #cell)
    end
  end
  for _, row in ipairs(rows) do
    local line = ""
    for i, cell in ipairs(row) do
      local gap = (" "):rep(widths[i] - #cell)
      line = line .. (i == 1 and cell .. gap or "  " .. gap .. cell)
    end
    print(line)
  end
end

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

-- Servers -------------------------------------------------------------------

local SERVER = [[
  location /with { content_by_lua_block {
    local lucid = require("lucidauth") lucid.token() ngx.print("x") } }
  location /without { content_by_lua_block {
    local lucid = require("lucidauth") ngx.print("x") } }
  location /token { content_by_lua_block {
    local token, message = require("lucidauth").token()
    ngx.status = token and 200 or 500
    ngx.print(token or message) } }
  location /refresh { content_by_lua_block {
    ngx.timer.at(0, function() require("lucidauth").refresh() end) ngx.print("x") } }
  location /cost { content_by_lua_block {
    local lucid, ffi = require("lucidauth"), require("ffi")
    ffi.cdef("typedef struct { long s, n; } lucid_time; int clock_gettime(int, lucid_time *);")
    local at = ffi.new("lucid_time")
    local function now()
      ffi.C.clock_gettime(1, at)
      return tonumber(at.s) + tonumber(at.n) / 1e9
    end
    local least = 1
    assert(lucid.token())
    for _ = 1, 50 do
      local began = now()
      for _ = 1, 100000 do lucid.token() end
      least = math.min(least, (now() - began) / 100000)
    end
    ngx.print(least * 1e9)
  } }
]]

local sandbox

-- With a token file of its own, which the sandbox's first refresh token starts.
local function start(options)
  sandbox:reset()
  options.sandbox = sandbox
  options.server = options.server or SERVER
  return nginx.start(options)
end

local processors = tonumber((helper.run("getconf _NPROCESSORS_ONLN")))
local OFF_THE_LAST = "worker_cpu_affinity 1;"

-- One line of what wrk says, which has the last processor to itself: the worker
-- under test is kept off it.
local function wrk(server, path, seconds, connections)
  local out = helper.run({ "taskset", "-c", tostring(processors - 1), "wrk", "-t1",
    "-c" .. (connections or 16), "-d" .. seconds .. "s", "--latency",
    "--timeout", "9s", "http://127.0.0.1:" .. server.port .. path })
  local number, unit = out:match("99%%%s+([%d.]+)(%a+)")
  local most, most_unit = out:match("Latency%s+%S+%s+%S+%s+([%d.]+)(%a+)")
  local scale = { us = 1, ms = 1e3, s = 1e6 }
  return {
    rate = tonumber(out:match("Requests/sec:%s+([%d.]+)")),
    requests = tonumber(out:match("(%d+) requests in")),
    failures = tonumber(out:match("Non%-2xx or 3xx responses: (%d+)") or 0),
    p99 = tonumber(number) * scale[unit],
    longest = tonumber(most) * scale[most_unit],
  }
end

local function posts()
  return sandbox:counts().token_requests
end

-- What is measured ----------------------------------------------------------

-- Seconds of processor time that the worker has had.
local function processor_time(server)
  local text = helper.read_file("/proc/" .. server:workers()[1] .. "/schedstat")
  return tonumber(text:match("^%d+")) / 1e9
end

-- By the clock, and by the worker's processor time, which leaves out what else
-- the machine does.
local function rates_of(server, path)
  local began = processor_time(server)
  local load = wrk(server, path, 1)
  return { load.rate, load.requests / (processor_time(server) - began) }
end

local function compare(what, with, without)
  local ratios = {}
  for i, rate in ipairs(with) do
    ratios[i] = rate / without[i]
  end
  local ratio = median(ratios)
  add(what, ("%.0f"):format(median(with)), ("%.0f"):format(median(without)),
    ("%.3f"):format(ratio), "at least 0.97", ratio >= 0.97)
end

-- Both locations take turns, and who begins does too.
local function requests_a_second(server)
  local paths = { "/with", "/without" }
  local by_clock, by_processor = { {}, {} }, { {}, {} }
  rates_of(server, "/with")
  for i = 1, 2 * ROUNDS do
    for turn = 1, 2 do
      local which = (i + turn) % 2 + 1
      local rates = rates_of(server, paths[which])
      by_clock[which][i], by_processor[which][i] = rates[1], rates[2]
    end
  end
  compare("requests a second, with lucid.token() and without", by_clock[1], by_clock[2])
  compare("the same by the worker's processor time", by_processor[1], by_processor[2])
end

-- LuaJIT compiles a loop as it finds the functions in it: new to it, or in use
-- for long.
local function cost_of_a_call(server, what)
  local _, body = server:get("/cost")
  local cost = tonumber(body)
  add("lucid.token() " .. what, ("%.1f ns"):format(cost), "", "", "at most 25 ns", cost <= 25)
end

-- The 99th percentile elsewhere, while a refresh hangs and while none does. What
-- else the machine does comes and goes: neighbours in time are compared, who begins
-- takes turns, and the median of the ratios counts. One connection, so that no
-- request waits for another's processor.
local function elsewhere(server, what, begin, finish)
  local during, before, ratios = {}, {}, {}
  local function plain(i)
    before[i] = wrk(server, "/without", 1, 1).p99
  end
  for i = 1, 2 * ROUNDS do
    if i % 2 == 1 then
      plain(i)
    end
    begin()
    during[i] = wrk(server, "/without", 1, 1).p99
    finish()
    if i % 2 == 0 then
      plain(i)
    end
    ratios[i] = during[i] / before[i]
  end
  local ratio = median(ratios)
  add(what, ("%.0f us"):format(median(during)), ("%.0f us"):format(median(before)),
    ("%.2f"):format(ratio), "at most 1.1", ratio <= 1.1)
end

local function while_the_server_hangs(server)
  local before
  elsewhere(server, "p99 of other requests while a refresh hangs", function()
    before = posts()
    sandbox:faults({ kind = "slow", when = "before", seconds = 2 })
    server:get("/refresh")
    nginx.eventually(function()
      return posts() == before + 1
    end)
  end, function()
    assert(posts() == before + 1, "the refresh did not hang")
    nginx.eventually(function()
      return sandbox:counts().rotations == before + 1
    end)
  end)
end

-- Whoever can be served with the token that lives waits for the new one, but not
-- longer than refresh_wait, the way of the request and its answer aside.
local function served_while_it_hangs()
  local wait, way = 2, 0.04
  local server = start({})
  server:get("/token")
  sandbox:faults({ kind = "slow", when = "before", seconds = 2 * wait })
  server:get("/refresh")
  nginx.eventually(function()
    return posts() == 2
  end)
  local load = wrk(server, "/token", 1.5 * wait)
  assert(sandbox:counts().rotations == 1, "the refresh did not hang")
  server:quit()
  local longest = load.longest / 1e6
  add(("longest wait of %d requests with a good token"):format(load.requests),
    ("%.2f s"):format(longest), ("%.2f s"):format(wait), ("%.2f"):format(longest / wait),
    "at most 1.02", longest <= wait + way and load.failures == 0)
end

local function while_the_disk_is_slow()
  local folder = helper.tmpdir()
  local slow, shim = folder .. "/slow", folder .. "/slow_sync.so"
  assert(select(3, helper.run({ "cc", "-O2", "-shared", "-fPIC", "-o", shim,
    here .. "slow_sync.c" })) == 0)
  helper.run("chmod 755 " .. folder .. " && chmod 755 " .. folder .. "/..")
  local server = start({
    workers = 1,
    main = OFF_THE_LAST .. "env SLOW_SYNC;",
    command = ("LD_PRELOAD=%s SLOW_SYNC=%s nginx"):format(shim, slow),
  })
  server:get("/token")
  local record
  elsewhere(server, "p99 of other requests while fsync takes 500 ms", function()
    record = helper.read_file(server.token_file)
    helper.write_file(slow, "")
    server:get("/refresh")
  end, function()
    os.remove(slow)
    nginx.eventually(function()
      local now = helper.read_file(server.token_file)
      return now ~= record and not now:find("pending", 1, true)
    end)
  end)
  server:quit()
end

-- Under load all the while, with the API asked on the side.
local function many_expiries()
  local server = start({ server = SERVER .. ([[
    location /users/ {
      access_by_lua_block {
        ngx.req.set_header("Authorization", (require("lucidauth").authorization())) }
      proxy_set_header Lucid-Api-Version 1;
      proxy_pass %s;
    }
  ]]):format(sandbox.url) })
  sandbox:settings({ lifetime = short and 2 or 3 })
  server:get("/token")
  local first = posts()
  local requests, failures, refused, asked = 0, 0, 0, 0
  repeat
    local load = helper.start({ "wrk", "-t1", "-c16", "-d2s",
      "http://127.0.0.1:" .. server.port .. "/token" })
    local until_then = socket.gettime() + 1.9
    repeat
      local status = server:get("/users/me/profile")
      asked = asked + 1
      refused = refused + (status == 401 and 1 or 0)
      failures = failures + ((status or 500) >= 500 and 1 or 0)
      socket.sleep(0.005)
    until socket.gettime() > until_then
    local out = load:wait()
    requests = requests + tonumber(out:match("(%d+) requests in"))
    failures = failures + tonumber(out:match("Non%-2xx or 3xx responses: (%d+)") or 0)
  until posts() - first >= EXPIRIES and requests >= REQUESTS
  local counts = sandbox:counts()
  server:quit()
  local sent, got = counts.token_requests - first, counts.rotations - first
  add(("refreshes sent and needed, %d requests"):format(requests), tostring(sent), tostring(got),
    ("%.2f"):format(sent / got), "1", sent == got and counts.overlaps == 0 and counts.reuses == 0)
  add(("requests that failed, of %d"):format(requests + asked), tostring(failures), "", "", "0",
    failures == 0)
  add(("401 from the API, of %d calls"):format(asked), tostring(refused), "", "",
    "at most 1 a refresh", refused <= sent)
end

-- Memory of a worker in KiB, the mean of all: what it takes of the machine, with
-- its part of the pages that others share; and, for the record, all that it has
-- mapped. Most of that are pages of the system's libraries, which nginx itself and
-- others have anyway.
local function memory_of(server)
  local sums, workers = { 0, 0 }, server:workers()
  for _, pid in ipairs(workers) do
    local text = helper.read_file("/proc/" .. pid .. "/smaps_rollup")
    for i, field in ipairs({ "Pss", "Rss" }) do
      sums[i] = sums[i] + tonumber(text:match("\n" .. field .. ":%s*(%d+)")) / #workers
    end
  end
  return sums
end

local function add_memory(what, now, plain, limit)
  local more = (now[1] - plain[1]) / 1024
  add("memory of a worker " .. what, ("+%.2f MiB"):format(more),
    ("%.1f MiB"):format(plain[1] / 1024), "", ("at most %g MiB"):format(limit), more <= limit)
  add("  all that it has mapped", ("+%.2f MiB"):format((now[2] - plain[2]) / 1024),
    ("%.1f MiB"):format(plain[2] / 1024), "", "")
end

-- Until every worker has had its turns.
local function ask_all(server, path, turns)
  local asked, left = {}, #server:workers()
  nginx.eventually(function()
    for _, body in ipairs(server:get_several(path, 8)) do
      local pid = assert(body:match("^%d+$"), body)
      asked[pid] = (asked[pid] or 0) + 1
      left = left - (asked[pid] == turns and 1 or 0)
    end
    return left == 0
  end, "an answer by each worker")
end

-- By this worker, whoever listens first.
local function refresh_by(server, pid)
  local rotations = sandbox:counts().rotations
  nginx.eventually(function()
    local _, body = server:get("/refresh_by?pid=" .. pid)
    return body == tostring(pid)
  end)
  nginx.eventually(function()
    return sandbox:counts().rotations == rotations + 1
  end)
end

local MEMORY_SERVER = [[
  location /plain { content_by_lua_block {
    local cjson = require("cjson") ngx.print(cjson and ngx.worker.pid()) } }
  location /token { content_by_lua_block {
    local lucid = require("lucidauth") ngx.print(lucid.token() and ngx.worker.pid()) } }
  location /refresh_by { content_by_lua_block {
    local pid = ngx.worker.pid()
    if tostring(pid) == ngx.var.arg_pid then
      ngx.timer.at(0, function() require("lucidauth").refresh() end)
    end
    ngx.print(pid) } }
]]

-- Over TLS, with all of the system's certificates, as it is for Lucid's API.
local function memory()
  local plain = start({ server = MEMORY_SERVER })
  ask_all(plain, "/plain", 50)
  local without = memory_of(plain)
  plain:quit()
  local tls = front.tls(sandbox.url)
  local bundle = nginx.folder() .. "/certificates"
  helper.write_file(bundle, helper.read_file("/etc/ssl/certs/ca-certificates.crt")
    .. helper.read_file(tls.ca_file))
  nginx.give(bundle)
  local server = start({ server = MEMORY_SERVER, init =
    ("require('lucidauth').configure({ api_url = %q, ca_file = %q })"):format(tls.url, bundle) })
  tokens.write(server.token_file, tokens.record(tokens.pair(sandbox), 3000))
  nginx.give(server.token_file)
  ask_all(server, "/token", 50)
  add_memory("before its first refresh", memory_of(server), without, 1.5)
  for _, pid in ipairs(server:workers()) do
    refresh_by(server, pid)
    refresh_by(server, pid)
  end
  ask_all(server, "/token", 50)
  add_memory("after it", memory_of(server), without, 6)
  server:quit()
  tls:stop()
end

sandbox = helper.start_sandbox()
local server = start({ workers = 1, main = OFF_THE_LAST })
server:get("/token")
cost_of_a_call(server, "in a new worker")
requests_a_second(server)
cost_of_a_call(server, "in the same worker after these")
server:quit()
server = start({ workers = 1, main = OFF_THE_LAST })
server:get("/token")
while_the_server_hangs(server)
server:quit()
served_while_it_hangs()
while_the_disk_is_slow()
many_expiries()
memory()
sandbox:stop()
print_table()
