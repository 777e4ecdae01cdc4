--- The tools that the specs share: the sandbox as a process of its own, programs to run,
--- HTTP, files. Needs a POSIX shell and mkfifo, and luasocket.

local socket = require("socket")
local http = require("socket.http")
local ltn12 = require("ltn12")

local codec = require("lucidauth.sandbox.codec")
local sorted_keys = require("lucidauth.tables").sorted_keys

local helper = {}

-- Long enough for a machine that has better things to do; what is waited for
-- comes within milliseconds, or the spec has found a fault.
local PATIENCE = 120

--- Seconds: for options that say how long something is waited for that must
--- not be waited for at all. A call that comes back sooner has not waited.
helper.LONG = 240

--- Seconds: for a timeout that a spec waits out. Within it a machine that has
--- better things to do still sends what is to be sent.
helper.SHORT = 2

--- Polls until a condition holds, and returns what it returned.
---@param condition fun(): any
---@param what string|nil what is waited for
---@return any
function helper.eventually(condition, what)
  local deadline = socket.gettime() + PATIENCE
  repeat
    local value = condition()
    if value then
      return value
    end
    socket.sleep(0.001)
  until socket.gettime() > deadline
  error("this never came true: " .. (what or "a condition"), 2)
end

--- A text as one word of a shell command.
---@param text string|number
---@return string
function helper.quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

local function output_of(command)
  local pipe = assert(io.popen(command, "r"))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""))
end

--- The interpreter that runs the specs, so that what they start runs in the
--- same one.
helper.interpreter = os.getenv("LUA") or output_of("readlink /proc/$PPID/exe 2>/dev/null")
if helper.interpreter == "" then
  helper.interpreter = rawget(_G, "jit") and "luajit" or "lua5.4"
end

--- A new table with the fields of all of these; later ones win.
---@param ... table|nil
---@return table
function helper.merge(...)
  local result = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...)) or {}) do
      result[name] = value
    end
  end
  return result
end

--- Whether a part stands in a text, as it is.
---@param text string
---@param part string
---@return boolean
function helper.contains(text, part)
  return text:find(part, 1, true) ~= nil
end

--- Every text in a value, the names in a table too.
---@param value any
---@return string
function helper.text_of(value)
  if type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for name, item in pairs(value) do
    parts[#parts + 1] = helper.text_of(name) .. "=" .. helper.text_of(item)
  end
  return table.concat(parts, " ")
end

--- The lines of a text that are not empty.
---@param text string
---@return string[]
function helper.lines(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  return lines
end

--- Like pairs, for a table whose keys are texts, but always in the same order.
---@param map table<string, any>
---@return function
function helper.sorted(map)
  local names, place = sorted_keys(map), 0
  return function()
    place = place + 1
    return names[place], map[names[place]]
  end
end

-- Files ---------------------------------------------------------------------

---@param path string
---@param text string
function helper.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

---@param path string
---@return string|nil text
---@return string|nil message
function helper.read_file(path)
  local file, message = io.open(path, "rb")
  if not file then
    return nil, message
  end
  local text = file:read("*a")
  file:close()
  return text
end

-- Runs a function when the Lua state closes.
local function at_exit(body)
  if rawget(_G, "newproxy") then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = body
    return proxy
  end
  return setmetatable({}, { __gc = body })
end

--- A port that nothing listens on. It lies below those that the system hands
--- out by itself, so that no test beside this one is given it meanwhile.
---@return integer
function helper.free_port()
  local random = assert(io.open("/dev/urandom", "rb"))
  for _ = 1, 100 do
    local high, low = random:read(2):byte(1, 2)
    local port = 10000 + (high * 256 + low) % 20000
    local server = socket.bind("127.0.0.1", port)
    if server then
      server:close()
      random:close()
      return port
    end
  end
  error("no port below 30000 is free")
end

local root

--- A new empty directory that nobody else can read. It goes when the specs end.
---@return string path
function helper.tmpdir()
  if not root then
    root = output_of("mktemp -d")
    -- A forked copy of this process may end sooner, and must not clean up.
    local owner = output_of("echo $PPID")
    helper.root_guard = at_exit(function()
      os.execute(("test $PPID != %s || rm -rf %s"):format(owner,
        helper.quote(root)))
    end)
  end
  return output_of("mktemp -d " .. helper.quote(root .. "/XXXXXX"))
end

-- Programs ------------------------------------------------------------------

local function exports(env)
  local lines = {}
  for name, value in pairs(env) do
    if value then
      lines[#lines + 1] = "export " .. name .. "=" .. helper.quote(value)
    else
      lines[#lines + 1] = "unset " .. name
    end
  end
  return table.concat(lines, "; ")
end

-- The variables by which a child finds the same modules, also those of busted's options.
local function module_paths()
  return { LUA_PATH = package.path, LUA_CPATH = package.cpath }
end

local function script_of(command)
  if type(command) == "string" then
    return command
  end
  local words = {}
  for i, word in ipairs(command) do
    words[i] = helper.quote(word)
  end
  return "exec " .. table.concat(words, " ")
end

---@class helper.Process
---@field pid integer
local Process = {}
Process.__index = Process

--- Starts a program and does not wait for it.
---@param command string|string[] a shell command, or a program and arguments
---@param env table<string, string|false>|nil false takes a variable out
---@param input string|nil what it reads from stdin
---@return helper.Process
function helper.start(command, env, input)
  local folder = helper.tmpdir()
  helper.write_file(folder .. "/in", input or "")
  local variables = module_paths()
  for name, value in pairs(env or {}) do
    variables[name] = value
  end
  local script = ("echo $$ >&3; exec 3>&- <%s >%s 2>%s; %s"):format(
    helper.quote(folder .. "/in"),
    helper.quote(folder .. "/out"),
    helper.quote(folder .. "/err"),
    script_of(command)
  )
  local pipe = assert(io.popen(("exec 2>/dev/null; %s; sh -c %s 3>&1; echo $?")
    :format(exports(variables), helper.quote(script)), "r"))
  return setmetatable({
    folder = folder,
    pipe = pipe,
    pid = tonumber(pipe:read("*l")),
  }, Process)
end

--- Sends a signal.
---@param signal string "TERM", "KILL", ...
function Process:kill(signal)
  os.execute("kill -" .. signal .. " " .. self.pid .. " 2>/dev/null")
end

--- Waits until the program has ended.
---@return string stdout
---@return string stderr
---@return integer exitcode 128 and more: ended by a signal
function Process:wait()
  if self.pipe then
    self.exitcode = tonumber(self.pipe:read("*l"))
    self.pipe:close()
    self.pipe = nil
  end
  return helper.read_file(self.folder .. "/out"),
    helper.read_file(self.folder .. "/err"),
    self.exitcode
end

--- Runs a program to its end.
---@param command string|string[] a shell command, or a program and arguments
---@param env table<string, string|false>|nil false takes a variable out
---@param input string|nil what it reads from stdin
---@return string stdout
---@return string stderr
---@return integer exitcode
function helper.run(command, env, input)
  return helper.start(command, env, input):wait()
end

--- Runs a shell command that must not fail.
---@param command string
---@return string stdout
function helper.shell(command)
  local out, err, status = helper.run(command)
  assert(status == 0, command .. ": " .. out .. err)
  return out
end

--- The words before a program in the shell that make file modes hold for it:
--- root without its privileges is still the owner of its files.
---@return string
function helper.without_privileges()
  local is_root = helper.run("id -u") == "0\n"
  return is_root and "exec setpriv --inh-caps=-all --bounding-set=-all " or "exec "
end

--- Runs Lua code in a process of its own.
---@param code string
---@param env table<string, string|false>|nil
---@return string stdout
---@return string stderr
---@return integer exitcode
function helper.run_lua(code, env)
  return helper.run({ helper.interpreter, "-e", code }, env)
end

---@class helper.Partner
---@field pid integer
---@field stdin file*
---@field stdout file*
local Partner = {}
Partner.__index = Partner

--- Starts a program to talk with: both its stdin and its stdout are pipes.
---@param script string a shell command; with exec, the pid is the program's
---@return helper.Partner
function helper.start_partner(script)
  local fifo = helper.tmpdir() .. "/stdout"
  output_of("mkfifo " .. helper.quote(fifo))
  local stdin = assert(io.popen(("exec >%s; echo $$; %s; %s"):format(helper.quote(fifo),
    exports(module_paths()), script), "w"))
  -- Both ends of the pipe open at the same time, so this waits for the start.
  local stdout = assert(io.open(fifo, "r"))
  local pid = tonumber(stdout:read("*l"))
  return setmetatable({ stdin = stdin, stdout = stdout, pid = pid }, Partner)
end

---@param line string|nil nothing but the end of a line
function Partner:say(line)
  self.stdin:write(line or "", "\n")
  self.stdin:flush()
end

---@return string|nil line nil: it has ended
function Partner:hear()
  return self.stdout:read("*l")
end

--- Waits until it has ended, which it does at the latest when its stdin ends.
---@param signal string|nil sent first: "KILL", ...
function Partner:stop(signal)
  if self.stdin then
    if signal then
      os.execute(("kill -%s %d 2>/dev/null"):format(signal, self.pid))
    end
    self.stdin:close()
    self.stdout:close()
    self.stdin = nil
  end
end

-- HTTP ----------------------------------------------------------------------

local function request(method, url, body, headers)
  local parts = {}
  headers["content-length"] = body and #body
  local ok, status, answer_headers = http.request({
    method = method,
    url = url,
    headers = headers,
    source = body and ltn12.source.string(body),
    sink = ltn12.sink.table(parts),
    redirect = false,
  })
  if not ok then
    return nil, status
  end
  return status, table.concat(parts), answer_headers
end

local function lower_names(headers)
  local result = {}
  for name, value in pairs(headers or {}) do
    result[name:lower()] = value
  end
  return result
end

--- One HTTP request; redirects are not followed.
---@param method string
---@param url string
---@param body table|string|nil a table is sent as JSON
---@param headers table<string, string>|nil
---@return integer|nil status nil when no answer came
---@return any answer the decoded JSON, or the text if it is none
---@return table<string, string>|nil headers names in lower case
function helper.http_json(method, url, body, headers)
  headers = lower_names(headers)
  if type(body) == "table" then
    body = codec.encode_json(body)
    headers["content-type"] = headers["content-type"] or "application/json"
  end
  local status, text, answer_headers = request(method, url, body, headers)
  if not status then
    return nil, text
  end
  local value = codec.decode_json(text)
  if value == nil then
    value = text
  end
  return status, value, answer_headers
end

--- Posts a form.
---@param url string
---@param fields table<string, string>
---@param headers table<string, string>|nil
---@return integer|nil status
---@return any answer
---@return table<string, string>|nil headers
function helper.http_form(url, fields, headers)
  headers = lower_names(headers)
  headers["content-type"] = "application/x-www-form-urlencoded"
  return helper.http_json("POST", url, codec.encode_form(fields), headers)
end

--- The URL of a port of this machine that is taken, and at which nobody answers.
---@return string url
---@return table taken to be closed when it has served
function helper.dead_url()
  local taken = assert(socket.tcp4())
  assert(taken:bind("127.0.0.1", 0))
  local _, port = taken:getsockname()
  return "http://127.0.0.1:" .. tonumber(port), taken
end

-- The sandbox ---------------------------------------------------------------

local FLAGS = { accounts = "account", redirect_uris = "redirect-uri" }

local function flags_of(options)
  local words = {}
  for name, value in pairs(options) do
    local flag = FLAGS[name] or name:gsub("_", "-")
    if type(value) == "boolean" then
      words[#words + 1] = "--" .. (value and "" or "no-") .. flag
    else
      for _, item in ipairs(type(value) == "table" and value or { value }) do
        words[#words + 1] = "--" .. flag .. "=" .. helper.quote(item)
      end
    end
  end
  return table.concat(words, " ")
end

---@class helper.Sandbox
---@field url string
---@field pid integer
---@field client_id string
---@field client_secret string
---@field refresh_token string the one it started with
---@field env table<string, string> what points lucidauth at it
local Sandbox = {}
Sandbox.__index = Sandbox

local function control(self, method, name, body)
  local status, answer =
    helper.http_json(method, self.url .. "/sandbox/" .. name, body)
  if status ~= 200 then
    error(name .. ": " .. tostring(type(answer) == "table" and answer.error
      or answer or status), 3)
  end
  return answer
end

--- The requests to it: `counts` and `entries`.
---@param last integer|nil how many entries at most
function Sandbox:log(last)
  return control(self, "GET", "log" .. (last and "?last=" .. last or ""))
end

--- The counts alone.
function Sandbox:counts()
  return self:log(0).counts
end

--- The settings, changed first if changes are given.
function Sandbox:settings(changes)
  return control(self, changes and "POST" or "GET", "settings", changes)
end

--- Queues a fault, or a list of them; without any: those that wait.
function Sandbox:faults(list)
  return control(self, list and "POST" or "GET", "faults", list)
end

function Sandbox:clear_faults()
  return control(self, "DELETE", "faults")
end

--- All grants with their present tokens.
function Sandbox:grants()
  return control(self, "GET", "grants")
end

--- One grant with its present tokens.
---@param account string|nil "default"
function Sandbox:grant(account)
  for _, grant in ipairs(self:grants()) do
    if grant.account == (account or "default") then
      return grant
    end
  end
end

--- A further grant, as if its user had just logged in.
---@param fields { account?: string, kind?: string, scope?: string }
function Sandbox:open_grant(fields)
  return control(self, "POST", "grants", fields)
end

--- Makes access tokens expire now.
---@param account string|nil of this account only
function Sandbox:expire(account)
  return control(self, "POST", "expire", { account = account }).expired
end

--- Revokes grants.
---@param account string|nil of this account only
function Sandbox:revoke_all(account)
  return control(self, "POST", "revoke_all", { account = account }).revoked
end

--- Makes everything as it was at the start.
function Sandbox:reset()
  control(self, "POST", "reset")
end

function Sandbox:stop()
  -- Its stdin may still be open in some other child, so that it would not
  -- notice the end of it.
  self.partner:stop("TERM")
end

--- A sandbox that is yet to start.
---@param options lucidauth.sandbox.Settings|nil
---@return helper.Sandbox
function helper.new_sandbox(options)
  options = options or {}
  return setmetatable({
    options = options,
    client_id = options.client_id or "sandbox-client",
    client_secret = options.client_secret or "sandbox-secret",
  }, Sandbox)
end

--- Starts it on a free port, in a process that ends with this one.
---@return helper.Sandbox itself
function Sandbox:start()
  self.partner = helper.start_partner(("exec %s -e %s -- --until-stdin-closes %s"):format(
    helper.quote(helper.interpreter), helper.quote('require("lucidauth.sandbox").main(arg)'),
    flags_of(self.options)))
  self.pid = self.partner.pid
  self.url = (self.partner:hear() or ""):match("^lucid sandbox on (http://%S+)$")
  if not self.url then
    self.partner:stop()
    error("the sandbox did not start", 2)
  end
  self.refresh_token = self:grant().refresh_token
  self.env = {
    LUCID_API_URL = self.url,
    LUCID_CLIENT_ID = self.client_id,
    LUCID_CLIENT_SECRET = self.client_secret,
    LUCID_REFRESH_TOKEN = self.refresh_token,
  }
  return self
end

--- Starts a sandbox on a free port, in a process that ends with this one.
---@param options lucidauth.sandbox.Settings|nil
---@return helper.Sandbox
function helper.start_sandbox(options)
  return helper.new_sandbox(options):start()
end

return helper
