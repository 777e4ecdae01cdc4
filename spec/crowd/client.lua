-- One process of the crowd in Lua: what client.c does in each of its threads.
--
--   lua client.lua seconds-between-calls folder report-fd pid

local http = require("socket.http")
local socket = require("socket")

local lucid = require("lucidauth")

local pause, folder, pid = tonumber(arg[1]), arg[2], arg[4]
local out = assert(io.open("/dev/fd/" .. arg[3], "w"))
local url = os.getenv("LUCID_API_URL")
local calls, login, client = 0, nil, nil

out:setvbuf("full", 4096)

local function report(...)
  out:write(("%s.0.%d "):format(pid, calls), table.concat({ ... }, " "), "\n")
  out:flush()
end

local function is_there(name)
  local file = io.open(folder .. "/" .. name)
  if file then
    file:close()
  end
  return file ~= nil
end

local function read_login()
  local file = assert(io.open(folder .. "/LOGIN"))
  local text = file:read("*l")
  file:close()
  return text
end

local function log_in(new)
  if client then
    client:close()
  end
  login = new
  client = lucid.new({ storage = folder .. "/token.json", refresh_token = login })
end

local function use(token, asked, given)
  local _, status = http.request({
    url = ("%s/users/me/profile?id=%s.0.%d"):format(url, pid, calls),
    headers = { Authorization = "Bearer " .. token, ["Lucid-Api-Version"] = "1" },
  })
  if status == 401 then
    report("401", ("%.6f %.6f"):format(asked, given))
    client:reject(token)
  elseif status ~= 200 then
    report("odd", tostring(status))
  end
end

local function complain(message, code)
  local owner = code == "lost_rotation" and message:match("in process (%d+)")
  if owner then
    report("lost", owner, message)
  else
    report("failed", code, message)
  end
  if code ~= "lost_rotation" then
    return
  end
  local new
  repeat
    socket.sleep(0.005)
    new = read_login()
  until new ~= login or is_there("STOP")
  log_in(new)
end

math.randomseed(tonumber(pid))
log_in(read_login())
while not is_there("STOP") do
  calls = calls + 1
  local asked = socket.gettime()
  local token, message, code = client:token()
  if token then
    use(token, asked, socket.gettime())
  else
    complain(message, code)
  end
  socket.sleep(pause * 2 * math.random())
end
client:close()
report("end", calls)
