--- A real nginx for the specs: a folder and a port of its own, Debian's Lua
--- module, four workers that run as another user where that is possible.

local busted = require("busted")
local socket = require("socket")

local helper = require("spec.helper")

local nginx = {}

local quote = helper.quote

-- Long enough for a machine that has better things to do.
local PATIENCE = 120

local function shell(command)
  local pipe = assert(io.popen(command .. " 2>&1", "r"))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""))
end

local is_root = shell("id -u") == "0"

-- A build with a sanitizer: its runtime has to be there before nginx.
local runtime = (helper.read_file("/proc/self/maps") or ""):match("(/%S*lib[at]san%.so%S*)")

--- Its path; then all is slower, and takes more memory, than it is for users.
nginx.runtime = runtime

--- The user that workers run as; nil: the one who runs the specs.
nginx.user = is_root and "www-data" or nil

nginx.eventually = helper.eventually

local shared

--- The modules where workers of another user can read them, wherever the
--- source lies.
---@return string folder with "lua" and "lib"
function nginx.modules()
  if not shared then
    shared = helper.tmpdir()
    local core = assert(package.searchpath("lucidauth.core", package.cpath))
    local lua = assert(package.searchpath("lucidauth", package.path))
    shell(("cd %s && cp -r %s lua && cp -r %s lib && chmod 711 .. && chmod -R a+rX ."):format(
      quote(shared), quote(lua:match("^(.*)/[^/]*$")), quote(core:match("^(.*)/[^/]*/[^/]*$"))))
  end
  return shared
end

--- A new folder that workers may write.
---@return string path
function nginx.folder()
  local path = helper.tmpdir()
  shell(("chmod 711 %s/.. && chmod 700 %s"):format(quote(path), quote(path)))
  if nginx.user then
    shell(("chown %s %s"):format(nginx.user, quote(path)))
  end
  return path
end

--- Gives a file to the workers' user.
---@param path string
function nginx.give(path)
  if nginx.user then
    assert(shell(("chown %s %s"):format(nginx.user, quote(path))) == "")
  end
end

local CONFIGURATION = [[
include /etc/nginx/modules-enabled/*.conf;
$user
worker_processes $workers;
error_log $prefix/error.log notice;
pid $prefix/nginx.pid;
$main
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path $prefix/body;
  proxy_temp_path $prefix/proxy;
  fastcgi_temp_path $prefix/fastcgi;
  uwsgi_temp_path $prefix/uwsgi;
  scgi_temp_path $prefix/scgi;
  lua_package_path "$modules/lua/?.lua;;";
  lua_package_cpath "$modules/lib/?.so;;";
  $http
  server {
    listen 127.0.0.1:$port;
    $server
  }
}
]]

---@class spec.nginx.Server
---@field pid integer of the master
---@field prefix string its folder
local Server = {}
Server.__index = Server

--- The text of the error log.
---@return string
function Server:log()
  return helper.read_file(self.prefix .. "/error.log") or ""
end

local function holds_one_of(line, texts)
  for _, text in ipairs(texts) do
    if line:find(text, 1, true) then
      return true
    end
  end
  return false
end

--- The error log's lines above notice, without those that hold one of the
--- expected texts.
---@param ... string expected texts
---@return string lines
function Server:problems(...)
  local found, in_expected = {}, false
  for line in self:log():gmatch("[^\n]+") do
    local is_entry = line:find("^%d+/%d+/%d+ ")
    local harmless = is_entry and holds_one_of(line, { "[notice]", "[info]" })
    if is_entry then
      in_expected = not harmless and holds_one_of(line, { ... })
    end
    -- an expected error's traceback goes on over several lines
    if not harmless and not in_expected then
      found[#found + 1] = line
    end
  end
  return table.concat(found, "\n")
end

local FAULTS = { "AddressSanitizer", "%.[ch]:%d+:%d+: runtime error:",
  "exited on signal [45678]%f[%D]", "exited on signal 11" }

--- Asserts that no process of it had a fault in memory; to be asked when it has
--- ended.
function Server:assert_sound()
  local said = self:log() .. (helper.read_file(self.prefix .. "/out") or "")
  for _, fault in ipairs(FAULTS) do
    if said:find(fault) then
      error("a process of nginx is broken:\n" .. said, 2)
    end
  end
end

--- The workers that run now.
---@return integer[]
function Server:workers()
  local pids = {}
  for pid in shell("pgrep -P " .. self.pid):gmatch("%d+") do
    pids[#pids + 1] = tonumber(pid)
  end
  return pids
end

local function is_there(pid)
  return helper.read_file("/proc/" .. pid .. "/stat") ~= nil
end

nginx.is_there = is_there

---@param signal string
---@param pid integer|nil the master
function Server:signal(signal, pid)
  shell(("kill -%s %d"):format(signal, pid or self.pid))
end

--- A new configuration or the same again; returns when the old workers have
--- gone.
function Server:reload()
  local old = self:workers()
  self:signal("HUP")
  for _, pid in ipairs(old) do
    nginx.eventually(function()
      return not is_there(pid)
    end, "an old worker's end")
  end
end

--- Waits until it has ended.
function Server:wait()
  nginx.eventually(function()
    return not is_there(self.pid)
  end, "nginx's end")
end

--- Ends it: requests under way are finished first.
function Server:quit()
  if self.stdin then
    self:signal("QUIT")
    self:wait()
    self.stdin:close()
    self.stdin = nil
  end
end

--- Ends it at once.
function Server:stop()
  if self.stdin then
    self:signal("TERM")
    self:wait()
    self.stdin:close()
    self.stdin = nil
  end
end

---@class spec.nginx.Request
local Request = {}
Request.__index = Request

--- Sends a request and does not wait for its answer.
---@param path string
---@param options { method?: string, headers?: table<string, string>, body?: string }|nil
---@return spec.nginx.Request
function Server:send(path, options)
  options = options or {}
  local client = assert(socket.tcp())
  client:settimeout(PATIENCE)
  assert(client:connect("127.0.0.1", self.port))
  local lines = {
    (options.method or "GET") .. " " .. path .. " HTTP/1.1",
    "Host: localhost",
    "Connection: close",
  }
  for name, value in pairs(options.headers or {}) do
    lines[#lines + 1] = name .. ": " .. value
  end
  if options.body then
    lines[#lines + 1] = "Content-Length: " .. #options.body
  end
  assert(client:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (options.body or "")))
  return setmetatable({ client = client, began = socket.gettime() }, Request)
end

local function unchunk(text)
  local parts, position = {}, 1
  while true do
    local size, after = text:match("^(%x+)[^\r]*\r\n()", position)
    size = size and tonumber(size, 16)
    if not size or size == 0 then
      return table.concat(parts)
    end
    parts[#parts + 1] = text:sub(after, after + size - 1)
    position = after + size + 2
  end
end

--- Waits for the answer.
---@return integer|nil status nil: the connection ended without one
---@return string body
---@return table<string, string> headers names in lower case
---@return number seconds since it was sent
function Request:receive()
  local text, _, part = self.client:receive("*a")
  local seconds = socket.gettime() - self.began
  self.client:close()
  text = text or part or ""
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  if not head then
    return nil, text, {}, seconds
  end
  local headers = {}
  for name, value in head:gmatch("\n([^:\r\n]+): *([^\r\n]*)") do
    headers[name:lower()] = value
  end
  if headers["transfer-encoding"] == "chunked" then
    body = unchunk(body)
  end
  return tonumber(head:match("^HTTP/1%.%d (%d+)")), body, headers, seconds
end

--- Hangs up.
function Request:close()
  self.client:close()
end

--- A request and its answer.
---@param path string
---@param options { method?: string, headers?: table<string, string>, body?: string }|nil
---@return integer|nil status
---@return string body
---@return table<string, string> headers
---@return number seconds
function Server:get(path, options)
  return self:send(path, options):receive()
end

--- The bodies of several answers to requests that were all sent before: more
--- than one worker has to do with them.
---@param path string
---@param count integer
---@return string[] bodies
function Server:get_several(path, count)
  local requests, bodies = {}, {}
  for i = 1, count do
    requests[i] = self:send(path)
  end
  for i, request in ipairs(requests) do
    bodies[i] = select(2, request:receive())
  end
  return bodies
end

local function fill(template, values)
  return (template:gsub("%$(%l+)", function(name)
    return values[name]
  end))
end

--- Makes `said`, the text of a log line or an answer for a location that has to say
--- all that lucidauth returns.
local PRELUDE = [[
  init_by_lua_block {
    function said(token, message, code)
      return token or tostring(code) .. ": " .. tostring(message)
    end
    $init
  }
]]

-- The sandbox's environment, and a token file that workers may write.
local function complete(options)
  local env = {}
  if options.sandbox then
    env.LUCID_TOKEN_FILE = nginx.folder() .. "/token.json"
    for name, value in pairs(options.sandbox.env) do
      env[name] = value
    end
  end
  for name, value in pairs(options.env or {}) do
    env[name] = value or nil
  end
  local exports, lines = {}, {}
  for name, value in pairs(env) do
    exports[#exports + 1] = ("export %s=%s; "):format(name, quote(value))
    lines[#lines + 1] = "env " .. name .. ";"
  end
  if options.whole then
    for name, files in pairs({ LUA_PATH = "/lua/?.lua;;", LUA_CPATH = "/lib/?.so;;" }) do
      exports[#exports + 1] = ("export %s=%s; "):format(name, quote(nginx.modules() .. files))
    end
  end
  if runtime then
    exports[#exports + 1] = ("LD_PRELOAD=%s ASAN_OPTIONS=detect_leaks=0 "):format(quote(runtime))
  end
  return env, table.concat(exports), table.concat(lines, " ")
end

-- The example as it stands, but for what it includes.
local function configure_example(self, options)
  local source = package.searchpath("lucidauth", package.path):match("^(.*)/[^/]*/[^/]*$")
  shell(("cd %s && cp %s/examples/openresty/* ."):format(quote(self.prefix), quote(source)))
  helper.write_file(self.prefix .. "/listen.conf", "listen 127.0.0.1:" .. self.port .. ";")
  helper.write_file(self.prefix .. "/lucid.conf", fill([[
    map "" $lucid_api { default http://lucid; }
    upstream lucid { server $api; }
    lua_package_path "$prefix/?.lua;$modules/lua/?.lua;;";
    lua_package_cpath "$modules/lib/?.so;;";
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    $http
  ]], {
    api = options.sandbox.url:match("//(.*)$"),
    lucid = "$lucid",
    prefix = self.prefix,
    modules = nginx.modules(),
    http = options.http or "",
  }))
end

local function configure(self, options, env_lines)
  if options.example then
    return configure_example(self, options)
  elseif options.whole then
    return helper.write_file(self.prefix .. "/nginx.conf",
      (options.whole:gsub("127%.0%.0%.1:8080", "127.0.0.1:" .. self.port)))
  end
  helper.write_file(self.prefix .. "/nginx.conf", fill(CONFIGURATION, {
    user = nginx.user and "user " .. nginx.user .. ";" or "",
    workers = tostring(options.workers or 4),
    prefix = self.prefix,
    modules = nginx.modules(),
    main = env_lines .. (options.main or ""),
    http = fill(PRELUDE, { init = options.init or "" }) .. (options.http or ""),
    server = options.server or "",
    port = tostring(self.port),
  }))
end

local function has_begun(self)
  local text = helper.read_file(self.prefix .. "/nginx.pid")
  self.pid = text and tonumber(text)
  local client = self.pid and socket.connect("127.0.0.1", self.port)
  if client then
    client:close()
  end
  return client or not is_there(self.shell)
end

-- It ends with the specs, whatever becomes of them.
local function try_to_start(self, options, exports)
  local directives = "daemon off;" .. (options.whole and " pid nginx.pid; env LUCID_API_URL;" or "")
  local command = ("cd %s; rm -f nginx.pid; "
    .. "%s %s -p %s -e error.log -c nginx.conf -g '%s' >out 2>&1 & "
    .. "echo $! >shell; cat >/dev/null; kill -TERM $! 2>/dev/null"):format(
    quote(self.prefix), exports, options.command or "nginx", quote(self.prefix), directives)
  self.stdin = assert(io.popen(command, "w"))
  self.shell = nginx.eventually(function()
    return tonumber(helper.read_file(self.prefix .. "/shell") or "")
  end, "a process")
  nginx.eventually(function()
    return has_begun(self)
  end, "nginx's start")
  return is_there(self.shell)
end

---@class spec.nginx.Options
---@field sandbox? helper.Sandbox what the environment points at
---@field env? table<string, string|false> changes to that
---@field main? string parts of nginx.conf
---@field init? string Lua for init_by_lua
---@field http? string
---@field server? string
---@field workers? integer
---@field command? string instead of "nginx"
---@field example? boolean examples/openresty/nginx.conf, with `http` added
---@field whole? string a nginx.conf as it stands, but for the port 8080

--- Starts one.
---@param options spec.nginx.Options
---@return spec.nginx.Server
function nginx.start(options)
  local self = setmetatable({ prefix = helper.tmpdir(), options = options }, Server)
  shell(("cd %s && chmod 711 . .."):format(quote(self.prefix)))
  if not options.example and not options.whole then
    shell(("ln -s /usr/share/nginx/modules %s/modules"):format(quote(self.prefix)))
  end
  local env, exports, lines = complete(options)
  self.token_file, self.env_lines = env.LUCID_TOKEN_FILE, lines
  for _ = 1, 5 do
    self.port = helper.free_port()
    configure(self, options, lines)
    if try_to_start(self, options, exports) then
      nginx.eventually(function()
        return #self:workers() >= ((options.example or options.whole) and 1 or options.workers or 4)
      end, "the workers' start")
      return self
    end
    self.stdin:close()
    if not self:log():find("Address already in use", 1, true) then
      break
    end
  end
  error("nginx did not start: " .. self:log() .. helper.read_file(self.prefix .. "/out"), 2)
end

--- Changes the configuration for the next reload.
---@param changes spec.nginx.Options
function Server:change(changes)
  for name, value in pairs(changes) do
    self.options[name] = value
  end
  configure(self, self.options, self.env_lines)
end

-- The locations that most specs ask for; a spec may have its own of the same name.
local LOCATIONS = {
  token = [[ content_by_lua_block { ngx.say(said(require("lucidauth").token())) } ]],
  refresh = [[ content_by_lua_block { ngx.say(said(require("lucidauth").refresh())) } ]],
  background = [[ content_by_lua_block {
    ngx.timer.at(0, function() require("lucidauth").refresh() end) ngx.say(ngx.worker.pid()) } ]],
  header = [[ return 200 "x"; header_filter_by_lua_block {
    ngx.header["x-said"] = said(require("lucidauth").token()) } ]],
  both = [[ content_by_lua_block {
    ngx.say(ngx.worker.pid(), " ", said(require("lucidauth").token())) } ]],
  other = [[ return 200 "other"; ]],
}

local function with_common_locations(text)
  for name, body in pairs(LOCATIONS) do
    if not text:find("location /" .. name .. " ", 1, true) then
      text = ("%s location /%s { %s }\n"):format(text, name, body)
    end
  end
  return text
end

---@class spec.nginx.Stage
---@field sandbox helper.Sandbox as new for each test
---@field server spec.nginx.Server what `start` started last; it ends after the test
local Stage = {}
Stage.__index = Stage

--- A sandbox, and nginx against it, for the tests of the file or the block that
--- calls this.
---@param settings? lucidauth.sandbox.Settings
---@return spec.nginx.Stage
function nginx.fixture(settings)
  local self = setmetatable({}, Stage)
  busted.setup(function()
    self.sandbox = helper.start_sandbox(settings)
  end)
  busted.teardown(function()
    self.sandbox:stop()
  end)
  busted.before_each(function()
    self.sandbox:reset()
  end)
  busted.after_each(function()
    local server = self.server
    self.server = nil
    if server then
      server:stop()
      server:assert_sound()
    end
  end)
  return self
end

--- Starts nginx with the sandbox as its Lucid, and with the locations that most
--- specs ask for.
---@param options? spec.nginx.Options
---@return spec.nginx.Server
function Stage:start(options)
  options = options or {}
  options.sandbox = self.sandbox
  options.server = with_common_locations(options.server or "")
  self.server = nginx.start(options)
  return self.server
end

--- How many token requests the sandbox has had.
---@return integer
function Stage:posts()
  return self.sandbox:counts().token_requests
end

--- Whether a text is the token that works now.
---@param text string
---@return boolean
function Stage:is_token(text)
  return (text:gsub("%s+$", "")) == self.sandbox:grant().access_token
end

--- Runs a plain script beside nginx, over the same token file.
---@param what "token"|"refresh"
---@param user? string who runs it
---@return string token
function Stage:run_script(what, user)
  local env = {
    LUCID_TOKEN_FILE = self.server.token_file,
    LUA_PATH = nginx.modules() .. "/lua/?.lua;;",
    LUA_CPATH = nginx.modules() .. "/lib/?.so;;",
    LD_PRELOAD = runtime,
    ASAN_OPTIONS = runtime and "detect_leaks=0",
  }
  for name, value in pairs(self.sandbox.env) do
    env[name] = value
  end
  -- the interpreter itself: another user may not read what lies where this
  -- source does
  local as = user and ("setpriv --reuid %s --clear-groups "):format(user) or ""
  local code = ('print(assert(require("lucidauth").%s()))'):format(what)
  local out, err, status =
    helper.run(("cd / && exec %sluajit -e %s"):format(as, quote(code)), env)
  assert(status == 0, err)
  return out
end

--- Waits until the sandbox has had so many token requests.
---@param count integer
function Stage:await_posts(count)
  nginx.eventually(function()
    return self:posts() == count
  end, "POST " .. count)
end

--- Has a token, and begins a refresh of it that meets this fault.
---@param fault table
---@return integer pid the worker's
function Stage:begin_with(fault)
  self:await_token()
  self.sandbox:faults(fault)
  local before = self:posts()
  local _, pid = self.server:get("/background")
  self:await_posts(before + 1)
  return tonumber(pid)
end

--- Has a token, and begins a refresh of it whose answer takes so long.
---@param seconds number
---@return integer pid the worker's
function Stage:begin_slow(seconds)
  return self:begin_with({ kind = "slow", seconds = seconds })
end

--- The same, but the server does nothing until `release`.
---@return integer pid the worker's
function Stage:begin_held()
  return self:begin_with({ kind = "held", when = "before" })
end

function Stage:release()
  self.sandbox:clear_faults()
end

--- Waits until a location says the token that works.
---@param path? string
function Stage:await_token(path)
  nginx.eventually(function()
    local _, body = self.server:get(path or "/token")
    return self:is_token(body)
  end, "a token that works")
end

--- Asserts that nothing stands in the error log that is not expected.
---@param ... string expected texts
function Stage:assert_no_problems(...)
  local problems = self.server:problems(...)
  if problems ~= "" then
    error("the error log says:\n" .. problems, 2)
  end
end

--- Asserts that a text has all parts; the error names the one that it lacks.
---@param text string
---@param ... string
function nginx.assert_contains(text, ...)
  for _, part in ipairs({ ... }) do
    if not text:find(part, 1, true) then
      error(("%q is missing in: %s"):format(part, text), 2)
    end
  end
end

return nginx
