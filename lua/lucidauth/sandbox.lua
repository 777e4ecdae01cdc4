--- A local Lucid, to develop and test against without an account. It rotates
--- refresh tokens as Lucid does, and fails in the ways that networks do.
--
--     lua -e 'require("lucidauth.sandbox").main(arg)' -- --port 8080
--
-- Within a program:
--
--     local server = assert(require("lucidauth.sandbox").new({ lifetime = 5 }))
--     print(server.url)
--     server:loop()

local server = require("lucidauth.sandbox.server")
local settings = require("lucidauth.sandbox.settings")

local sandbox = {}

--- Starts a sandbox that listens; `step` or `loop` makes it answer. Raises when
--- a setting is unknown or its value cannot be used.
---@param options? lucidauth.sandbox.Settings
---@return lucidauth.sandbox.Server? server
---@return string? message why it cannot listen
function sandbox.new(options)
  return server.new(options)
end

-- With `lua -e CHUNK -- --port 0` the interpreter takes the first option for
-- the script's name, and with `lua -e CHUNK` it may leave its own in place.
local function own_arguments(arguments)
  local list = { (table.unpack or unpack)(arguments) }
  if arguments[-1] == "--" and tostring(arguments[0]):find("^%-") then
    table.insert(list, 1, arguments[0])
  elseif list[1] == "-e" then
    return {}
  end
  return list
end

-- Written aside and renamed, so that no reader sees half of it.
local function write_ready_file(path, url)
  local file = assert(io.open(path .. ".new", "w"))
  file:write(url, "\n")
  file:close()
  assert(os.rename(path .. ".new", path))
end

-- Enough of a socket for the loop to wait for.
local STDIN = {
  getfd = function()
    return 0
  end,
  dirty = function()
    return false
  end,
}

local function stop_with_stdin(running)
  running.reactor:spawn(function()
    repeat
      running.reactor:wait_readable(STDIN)
    until not io.stdin:read(1)
    running:stop()
  end)
end

local GREETING = [[
lucid sandbox on %s

Point lucidauth at it:

  export LUCID_API_URL=%s
  export LUCID_CLIENT_ID=%s
  export LUCID_CLIENT_SECRET=%s
  export LUCID_REFRESH_TOKEN=%s

What it was asked: %s/sandbox/log
]]

local function greet(running)
  local values = running.values
  io.stdout:write(GREETING:format(running.url, running.url, values.client_id,
    values.client_secret, values.refresh_token, running.url))
  io.stdout:flush()
end

local function fail(message)
  io.stderr:write("lucid sandbox: ", message, "\n")
  os.exit(2)
end

local function start(arguments)
  local options, program = settings.parse(arguments)
  if not options then
    fail(program .. " (--help lists all)")
  elseif program.help then
    io.stdout:write(settings.usage())
    os.exit(0)
  end
  local ok, running, message = pcall(sandbox.new, options)
  if not ok or not running then
    fail(tostring(message or running))
  end
  return running, program
end

--- The program: runs until it is told to stop, then ends the process.
---@param arguments string[] the global `arg`, or a list of options
function sandbox.main(arguments)
  local running, program = start(own_arguments(arguments))
  greet(running)
  if program.ready_file then
    write_ready_file(program.ready_file, running.url)
  end
  if program.until_stdin_closes then
    stop_with_stdin(running)
  end
  running:loop()
  os.exit(0)
end

return sandbox
