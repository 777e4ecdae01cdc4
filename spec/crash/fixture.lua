--- Where the crash sweep and the faults play: a sandbox in a process of its
--- own, a folder with a token file, and clients that run under the tracer.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")
local socket = require("socket")
local tokens = require("spec.tokens")

local quote = helper.quote

local fixture = {}

-- spec/crash of the build whose interpreter runs this.
local built = assert(os.getenv("LUA"), "run this with <build>/lua"):match("^.*/") .. "spec/crash/"

local here = debug.getinfo(1, "S").source:match("^@(.*)fixture%.lua$")

fixture.built = built

--- The two clients, each as the words that start it.
fixture.clients = {
  lua = quote(helper.interpreter) .. " " .. quote(here .. "client.lua"),
  c = quote(built .. "crash_client"),
}

--- What they are called.
fixture.names = { lua = rawget(_G, "jit") and "LuaJIT" or _VERSION, c = "C" }

-- A follower that hangs is ended after so many seconds.
local PATIENCE = 200

local Stage = {}
Stage.__index = Stage

---@param client "lua"|"c"
---@return crash.Stage it ends with its sandbox
function fixture.new(client)
  local folder = helper.tmpdir()
  return setmetatable({
    sandbox = helper.start_sandbox({ punish_reuse = true, latency = 0 }),
    client = fixture.clients[client],
    folder = folder .. "/tokens",
    path = folder .. "/tokens/token.json",
    report_path = folder .. "/report",
    out_path = folder .. "/out",
  }, Stage)
end

---@param record table|nil what the token file holds; nil: there is none
function Stage:reset(record)
  self.sandbox:reset()
  self.refresh_token = self.sandbox.refresh_token
  local folder = quote(self.folder)
  assert(os.execute(("rm -rf %s && mkdir -m 700 %s"):format(folder, folder)))
  if record then
    tokens.write(self.path, record)
  end
end

--- A record of the sandbox's grant whose access token has `left` seconds.
---@param left number
---@return table
function Stage:record(left)
  return tokens.record({
    access_token = "oauth2-a-of-an-earlier-day",
    refresh_token = self.sandbox.refresh_token,
    token_type = "bearer",
  }, left)
end

function Stage:environment()
  local words = {}
  for name, value in pairs(tokens.env(self.sandbox.env)) do
    words[#words + 1] = value and name .. "=" .. quote(value) or nil
  end
  words[#words + 1] = "LUCID_REFRESH_TOKEN=" .. quote(self.refresh_token)
  words[#words + 1] = "LUCID_TOKEN_FILE=" .. quote(self.path)
  words[#words + 1] = "LUA_PATH=" .. quote(package.path)
  words[#words + 1] = "LUA_CPATH=" .. quote(package.cpath)
  return "env " .. table.concat(words, " ")
end

---@class crash.Outcome
---@field lines string[] what the client said
---@field code integer exit code, 128 and more: ended by a signal
---@field seconds number

--- The client as a shell command.
---@param steps string[] see client.c
---@param before string|nil what it runs under
---@return string
function Stage:command(steps, before)
  local words = {}
  for i, step in ipairs(steps) do
    words[i] = quote(step)
  end
  return ("%s timeout -s KILL %d %s %s %s"):format(self:environment(), PATIENCE, before or "",
    self.client, table.concat(words, " "))
end

--- The tracer as a shell command, for what comes behind it. A program that is
--- traced cannot look for leaks.
---@param options string see tracer.c
---@return string
function Stage:tracer(options)
  return ('env ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" %s %s %s %s'):format(
    quote(built .. "crash_tracer"), options, quote(self.folder), quote(self.report_path))
end

--- Runs a shell command.
---@param command string
---@return crash.Outcome
function Stage:run(command)
  local start = socket.gettime()
  local pipe = assert(io.popen(("{ %s\n} >%s 2>&1; echo $?"):format(command,
    quote(self.out_path))))
  local code = tonumber(pipe:read("*l"))
  pipe:close()
  local lines = {}
  for line in helper.read_file(self.out_path):gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  return { lines = lines, code = code, seconds = socket.gettime() - start }
end

--- Runs the client to its end, unless it hangs.
---@param steps string[] see client.c
---@return crash.Outcome
function Stage:follow(steps)
  return self:run(self:command(steps))
end

local function make_older(path, reference)
  local text = helper.read_file(path)
  local older, count = (text or ""):gsub('("since":%s*)[%d%.]+', "%11000000000")
  if count > 0 then
    path, reference = quote(path), quote(reference)
    assert(os.execute(("touch -r %s %s"):format(path, reference)))
    local file = assert(io.popen(("cat >%s && touch -r %s %s"):format(path, reference, path), "w"))
    file:write(older)
    file:close()
  end
end

--- As if long ago: who finds a young mark waits for a while before it settles
--- what its owner has left. Which file is younger than which stays as it is.
function Stage:let_time_pass()
  local reference = self.folder .. ".reference"
  make_older(self.path, reference)
  for name in pairs(self:files()) do
    if name:find("^token%.json%.tmp") then
      make_older(self.folder .. "/" .. name, reference)
    end
  end
end

--- The mark in the record says no more which lock file it was set under.
function Stage:forget_lock()
  local record = helper.read_file(self.path):gsub('"lock":"[^"]*",', "")
  helper.write_file(self.path, record)
end

---@class crash.Report
---@field pid integer
---@field points { when: string, occurrence: string, call: string, object: string }[]
---@field faults { call: string, object: string, when: string }[]

local function read_report(path)
  local report = { points = {}, faults = {} }
  for line in helper.read_file(path):gmatch("[^\n]+") do
    local kind, rest = line:match("^(%w+)\t(.*)$")
    if kind == "pid" then
      report.pid = tonumber(rest)
    elseif kind == "point" then
      local when, occurrence, call, object = rest:match("^(%w+)\t(%d+)\t(%S+)\t(.*)$")
      table.insert(report.points,
        { when = when, occurrence = occurrence, call = call, object = object })
    elseif kind == "fail" then
      local call, object, when = rest:match("^(%S+)\t(.*)\t(%w+)$")
      table.insert(report.faults, { call = call, object = object, when = when })
    end
  end
  return report
end

--- Runs the client under the tracer.
---@param options string the tracer's, see tracer.c
---@param steps string[]
---@return crash.Outcome
---@return crash.Report
function Stage:trace(options, steps)
  local outcome = self:run(self:command(steps, self:tracer(options)))
  assert(outcome.code < 125 or outcome.code > 127, outcome.lines[1])
  return outcome, read_report(self.report_path)
end

--- Every point of a run that nothing happens to.
---@param steps string[]|nil a token
function Stage:list_points(steps)
  local _, report = self:trace("--list", steps or { "token" })
  return report.points
end

--- The place of the point that ends a refresh; 0: there is none.
---@param points table[]
---@return integer
function fixture.last_unlock(points)
  for i = #points, 1, -1 do
    if points[i].object:find("^unlock ") then
      return i
    end
  end
  return 0
end

--- The files in the folder, their contents by name.
---@return table<string, string>
function Stage:files()
  local files = {}
  local pipe = assert(io.popen("ls -A " .. quote(self.folder)))
  for name in pipe:lines() do
    files[name] = helper.read_file(self.folder .. "/" .. name)
  end
  pipe:close()
  return files
end

--- Whether any file in the folder holds this text.
---@param text string
---@return boolean
function Stage:holds(text)
  for _, content in pairs(self:files()) do
    if content:find(text, 1, true) then
      return true
    end
  end
  return false
end

--- Whether the token file is a whole record of this grant, of its owner alone,
--- and nothing else lies about but the lock file.
---@param grant table as the sandbox describes it
---@return string|nil problem
function Stage:find_fault_in_files(grant)
  local files = self:files()
  local record = codec.decode_json(files["token.json"] or "")
  local mode = io.popen("stat -c %a " .. quote(self.path)):read("*l")
  files["token.json"], files["token.json.lock"] = nil, nil
  if type(record) ~= "table" then
    return "the token file is no record"
  elseif mode ~= "600" then
    return "the token file has the mode " .. mode
  elseif next(files) then
    return next(files) .. " was left behind"
  elseif record.access_token ~= grant.access_token
    or record.refresh_token ~= grant.refresh_token then
    return "the token file holds other tokens than the server issued"
  elseif record.pending then
    return "the token file still has a pending mark"
  end
end

--- What a client said first: a token, or a code and its message.
---@param outcome crash.Outcome
---@return string|nil token
---@return string|nil code
---@return string|nil message
function fixture.answer(outcome)
  for _, line in ipairs(outcome.lines) do
    local token = line:match("^token (%S+)$")
    local code, message = line:match("^failure (%S+) (.*)$")
    if token or code then
      return token, code, message
    end
  end
end

---@param outcome crash.Outcome
---@param text string a line, or how it begins
---@return boolean
function fixture.says(outcome, text)
  for _, line in ipairs(outcome.lines) do
    if line:sub(1, #text) == text then
      return true
    end
  end
  return false
end

--- Whether the API takes this token, and it is the grant's present one.
---@param token string
---@param grant table
---@return boolean
function Stage:works(token, grant)
  return token == grant.access_token and tokens.works(self.sandbox, token)
end

-- The command line ----------------------------------------------------------

---@class crash.Options
---@field clients ("lua"|"c")[] those that are to play
---@field full boolean|nil
---@field only string|nil the one case that is wanted

-- nil: it is not understood.
-- Cases are strings, or tables with a name.
local function is_case(lists, word)
  for _, list in ipairs(lists) do
    for _, case in ipairs(list) do
      if (type(case) == "table" and case.name or case) == word then
        return true
      end
    end
  end
  return false
end

local function read_arguments(words, flag, cases)
  local options, place = { clients = { "lua", "c" } }, 1
  while words[place] do
    local word, value = words[place], words[place + 1]
    if word == "--full" then
      options.full = true
    elseif word == flag and is_case(cases, value) then
      options.only = value
    elseif word == "--client" and fixture.clients[value] then
      options.clients = { value }
    else
      return nil
    end
    place = place + (word == "--full" and 1 or 2)
  end
  return options
end

-- The program again, for one client alone.
local function start_for(client, words)
  local command = { helper.interpreter, arg[0] }
  for _, word in ipairs(words) do
    command[#command + 1] = word
  end
  command[#command + 1] = "--client"
  command[#command + 1] = client
  return helper.start(command)
end

--- Runs a program from its command line to its end; clients play side by side,
--- since much of what they do is to wait.
---@param words string[] [--full] [flag case] [--client lua|c]
---@param usage string
---@param flag string "--situation"
---@param cases (string|{ name: string })[][] lists of the names that may stand behind the flag
---@param play fun(client: "lua"|"c", options: crash.Options): boolean whether all was well
function fixture.main(words, usage, flag, cases, play)
  local options = read_arguments(words, flag, cases)
  if not options then
    io.stderr:write(usage)
    os.exit(2)
  end
  local others = {}
  for i = 2, #options.clients do
    others[i - 1] = start_for(options.clients[i], words)
  end
  local good = play(options.clients[1], options)
  for _, process in ipairs(others) do
    local out, err, code = process:wait()
    io.write(out)
    io.stderr:write(err)
    good = code == 0 and good
  end
  os.exit(good and 0 or 1, true)
end

return fixture
