--- Measures, and prints one table of ratios. Run by bench/run, with the build
--- folder as the argument.

local helper = require("spec.helper")

-- The interpreter itself: build/lua54/lua is a shell script, and a shell that
-- starts on both sides would hide what ours costs.
local lua = arg[-1]
local build = arg[1]
local tools = build .. "/bench"
local bench = (arg[0]:gsub("[^/]*$", ""))

local LAYOUTS = 5 -- processes that measure calls: each has its memory laid out anew
local STARTS, REFRESHES = 500, 40
local AT_A_TIME = 5
local LATENCY = 0.05

-- Rows --------------------------------------------------------------------

local rows = {}

local function add(what, measured, reference, ratio, limit, ok)
  rows[#rows + 1] = { what, measured, reference, ratio, limit, ok and "ok" or "over" }
end

local function time_of(nanoseconds)
  local units = { "ns", "µs", "ms" }
  local unit = 1
  while nanoseconds >= 1000 and unit < #units do
    nanoseconds, unit = nanoseconds / 1000, unit + 1
  end
  return ("%.4g %s"):format(nanoseconds, units[unit])
end

local function mebibytes(bytes)
  return ("%.1f MiB"):format(bytes / 2 ^ 20)
end

local function add_time(what, measured, reference, limit)
  local ratio = measured / reference
  add(what, time_of(measured), time_of(reference), ("%.2f"):format(ratio),
    ("at most %g"):format(limit), ratio <= limit)
end

local function print_table()
  table.insert(rows, 1, { "what / reference", "measured", "reference", "ratio", "limit", "" })
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      -- characters, not bytes
      widths[i] = math.max(widths[i] or 0, #cell:gsub("[\128-\191]", ""))
    end
  end
  for _, row in ipairs(rows) do
    local line = ""
    for i, cell in ipairs(row) do
      local gap = (" "):rep(widths[i] - #cell:gsub("[\128-\191]", ""))
      line = line .. (i == 1 and cell .. gap or "  " .. gap .. cell)
    end
    print(line)
  end
end

-- Processes ---------------------------------------------------------------

local function must_run(command, env)
  local out, err, code = helper.run(command, env)
  if code ~= 0 then
    error(table.concat(command, " ") .. " failed: " .. err, 0)
  end
  return out
end

local function numbers(text)
  local list = {}
  for number in text:gmatch("%S+") do
    list[#list + 1] = tonumber(number)
  end
  return list
end

-- Runs commands side by side, again and again; for each its wall time in
-- nanoseconds, the least and the lower quartile, and its peak memory in bytes.
local function spawn(rounds, env, ...)
  local command = { tools .. "/spawn", tostring(rounds) }
  for _, words in ipairs({ ... }) do
    command[#command + 1] = "--"
    for _, word in ipairs(words) do
      command[#command + 1] = word
    end
  end
  local list = numbers(must_run(command, env))
  local results = {}
  for i = 1, #list, 3 do
    results[#results + 1] = { least = list[i], quartile = list[i + 1], peak = list[i + 2] }
  end
  return results
end

-- An environment that stays on this machine, whatever the user's own says.
local function environment(server)
  return helper.merge({ no_proxy = "127.0.0.1" }, server.env,
    { LUCID_TOKEN_FILE = helper.tmpdir() .. "/token_info.json" })
end

-- What is measured --------------------------------------------------------

-- What a way of asking may cost, held against an empty C function.
local ways = {
  { "lucid.token()", 1.7 },
  { "lucid.authorization()", 1.7 },
  { "lucid.token(nil)", 1.7 },
  { "client:token()", 1.7 },
  { "client:authorization()", 1.7 },
  { "client:token(name)", 3 },
  { "client:authorization(name)", 3 },
}

local function measure_calls(interpreter, env, folder)
  local least = {}
  local own = helper.merge(env,
    { LUA_PATH = false, LUA_CPATH = tools .. "/" .. interpreter .. "/?.so;;" })
  for _ = 1, LAYOUTS do
    local program = { build .. "/" .. interpreter .. "/lua", bench .. "call.lua", folder }
    local out = must_run(program, own)
    for name, value in out:gmatch("([^\n]+): (%S+)") do
      least[name] = math.min(least[name] or math.huge, tonumber(value))
    end
  end
  return least
end

local function calls(env)
  local example = { "python3", bench .. "example.py", env.LUCID_TOKEN_FILE }
  local script = tonumber((must_run(example, env)))
  local folder = helper.tmpdir()
  helper.write_file(folder .. "/anna.json", helper.read_file(env.LUCID_TOKEN_FILE))
  for _, interpreter in ipairs({ "lua54", "luajit" }) do
    local name = interpreter == "lua54" and "Lua 5.4" or "LuaJIT"
    local cost = measure_calls(interpreter, env, folder)
    for _, way in ipairs(ways) do
      local call, limit = way[1], way[2]
      add_time(("%s: %s / an empty C function"):format(name, call), cost[call],
        cost[call .. " empty"], limit)
    end
    local faster = script / cost["lucid.token()"]
    add(name .. ": lucid.token() / the example script's way", time_of(cost["lucid.token()"]),
      time_of(script), ("1/%.0f"):format(faster), "at most 1/300", faster >= 300)
    add(name .. ": memory left by seven million calls", ("%.0f bytes"):format(cost.allocated),
      "", "", "0 bytes", cost.allocated == 0)
  end
end

local START = 'print(require("lucidauth").token())'
local MAPPED = [[
  local function mapped()
    for line in io.lines("/proc/self/maps") do
      if line:find("libcurl", 1, true) then
        return "mapped"
      end
    end
    return "not mapped"
  end
  local lucid = require("lucidauth")
  assert(lucid.token())
  local before = mapped()
  assert(lucid.refresh())
  print(before .. "," .. mapped())
]]

-- Work for the processor alone: the least of many is the cost.
local function starts(env)
  local bare, whole = table.unpack(spawn(STARTS, env, { lua, "-e", "" }, { lua, "-e", START }))
  add_time("process: a token from the file / lua -e ''", whole.least, bare.least, 1.3)
  local before, after = must_run({ lua, "-e", MAPPED }, env):match("^(.-),(.-)\n")
  add("process: libcurl with a token from the file / after a refresh", before, after, "",
    "not mapped", before == "not mapped" and after == "mapped")
end

-- Not the least, since a refresh waits for the disk too.
local function quartile(list)
  table.sort(list)
  return list[math.floor(#list / 4) + 1]
end

-- Both take turns, in processes that have made one refresh before.
local function warm(env, post)
  local taken = { refresh = {}, post = {} }
  local more = helper.merge(env, { LUA_CPATH = tools .. "/lua54/?.so;" .. package.cpath })
  local times = tostring(AT_A_TIME + 1)
  for _ = 1, REFRESHES / AT_A_TIME do
    for name, command in pairs({
      refresh = { lua, bench .. "refresh.lua", times },
      post = { post[1], post[2], post[3], times },
    }) do
      local list = numbers(must_run(command, more))
      table.move(list, 2, #list, #taken[name] + 1, taken[name])
    end
  end
  return quartile(taken.refresh), quartile(taken.post)
end

local function refreshes(env, server)
  local post = {
    tools .. "/curl_post",
    server.url .. "/oauth2/token",
    ('{"client_id":"%s","client_secret":"%s","grant_type":"refresh_token","refresh_token":"%s"}')
      :format(server.client_id, server.client_secret, server.refresh_token),
    "1",
  }
  local refresh = { lua, "-e", 'assert(require("lucidauth").refresh())' }
  local measured, reference = warm(env, post)
  add_time("refresh: a call / the POST by libcurl from C", measured, reference, 1.15)
  local whole, bare = table.unpack(spawn(REFRESHES, env, refresh, post))
  add_time("refresh: a process / the same", whole.quartile, bare.quartile, 1.15)
  local above = whole.peak - bare.peak
  add("refresh: a process's peak memory / the same", mebibytes(whole.peak), mebibytes(bare.peak),
    ("%+.1f MiB"):format(above / 2 ^ 20), "at most +4 MiB", above <= 4 * 2 ^ 20)
end

-- Many processes on one token file.
local function crowds()
  local least = {}
  for name, value in must_run({ tools .. "/crowd", lua, "." }):gmatch("([%a ]+): (%S+)") do
    least[name] = tonumber(value)
  end
  local ms = 1e6
  add("sharing: another process sees a refresh after", time_of(least.seen), "", "", "at most 1 ms",
    least.seen <= ms)
  add("sharing: the same, the latest of fifty", time_of(least["seen at the latest"]), "", "",
    "", true)
  add_time("sharing: an expiry under 64 processes / a lone one", least["crowded expiry"],
    least["lone expiry"], 1.3)
  add("sharing: the page's part of a check / all of it", time_of(least.page),
    time_of(least.check), "", "at most 5 ns", least.page <= 5)
end

local function busy()
  local load = helper.read_file("/proc/loadavg")
  return load and "load before the start: " .. load:match("%S+") or "load: unknown"
end

-- Refresh tokens that stay as they are let a program without a storage of its
-- own post again and again.
local load = busy()
local server = helper.start_sandbox({ latency = LATENCY, rotate = false })
local env = environment(server)
must_run({ lua, "-e", START }, env)
calls(env)
starts(env)
refreshes(env, server)
server:stop()
crowds()
print_table()
print(load)
