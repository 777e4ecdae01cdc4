--- nginx as an event loop: the phases that may wait, its timers, and the lines in
--- its error log.

local ngx = ngx
local core = require "lucidauth.core"
local loop = require "lucidauth.loop"
local printable = require "lucidauth.tables".printable

local M = { is_ending = ngx.worker.exiting }

-- Looked up at each call, as a program may replace it.
function M.sleep(seconds)
  ngx.sleep(seconds)
end

local may_yield = {
  rewrite = true,
  server_rewrite = true,
  access = true,
  content = true,
  timer = true,
  preread = true,
  ssl_cert = true,
  ssl_client_hello = true,
  ssl_session_fetch = true,
}

--- Whether the code that runs now may wait. Below `require`, or a function that
--- C calls, it may not, in any phase.
---@return boolean
function M.can_yield()
  return may_yield[ngx.get_phase()] == true and core.can_yield()
end

local in_master = "There is no token in init_by_lua: nginx's master process keeps none. Ask in "
  .. "init_worker_by_lua or later."

local not_by_master = "Nothing is stored in init_by_lua: nginx's master process keeps no token. "
  .. "Store it in init_worker_by_lua or later."

--- The answer in a phase in which no token can be had, or the tokens of a login
--- cannot be stored.
---@param stores? boolean
---@return nil
---@return string? message nil: this is no such place
---@return string? code
function M.refusal(stores)
  if ngx.get_phase() == "init" then
    return nil, stores and not_by_master or in_master, "not_ready"
  end
end

-- Phases in which a wait holds up no request.
local may_block = { init = true, exit_worker = true }

local function when_all_is_over_later(is_idle, has_waiters, close)
  return ngx.timer.at(0, function()
    local closed, message = M.close_when_all_is_over(is_idle, has_waiters, close)
    if not closed then
      M.complain("lucidauth: a client could not be closed: " .. message)
    end
  end)
end

--- Closes something once no refresh is in the air: the caller waits by yielding;
--- one that may not yield does not wait at all. When the worker ends, all that
--- is left is to block.
---@param is_idle fun(): boolean
---@param has_waiters fun(): boolean
---@param close fun(): true?, string?, string?
---@return true? closed or going to be
---@return string? message
---@return string? code
function M.close_when_idle(is_idle, has_waiters, close)
  if M.can_yield() then
    return M.close_when_all_is_over(is_idle, has_waiters, close)
  elseif may_block[ngx.get_phase()] or is_idle()
    or not when_all_is_over_later(is_idle, has_waiters, close) then
    return close()
  end
  return true
end

local has_exdata, exdata = pcall(require, "thread.exdata")
local no_request = has_exdata and require("ffi").cast("void *", 0)

--- Calls a function to which no request belongs. nginx's functions look for the
--- present one, and when the Lua state ends they would find one that is gone.
---@param run function
---@param ... any
function M.outside_requests(run, ...)
  if has_exdata then
    local present = exdata()
    exdata(no_request)
    pcall(run, ...)
    exdata(present)
  end
end

--- A line in the error log.
---@param text string
function M.complain(text)
  ngx.log(ngx.ERR, text)
end

local broken_off = "A refresh was broken off: %s. Nothing that the storage holds was lost; "
  .. "ask again."

-- A timer's coroutine outlives the request that it was started for.
local function start(run)
  local box = {}
  local function carry_out()
    local ok, token, message, code = pcall(run)
    if not ok then
      token, message, code = nil, broken_off:format(token), "not_ready"
      M.complain("lucidauth: " .. message)
    end
    box.landed, box.token, box.message, box.code = true, token, message, code
  end
  if ngx.timer.at(0, carry_out) then
    return box
  elseif M.can_yield() then
    -- there are too many timers, or the worker is about to exit
    carry_out()
    return box
  end
end

local function wait_until_landed(box, living, patience)
  local until_then = core.ran() + patience
  local token
  M.wait_for(function()
    local left = until_then - core.ran()
    if not box.landed and left <= 0 then
      token = living()
    end
    return box.landed or token, left
  end)
  return token
end

--- Runs a flight on a coroutine of its own, so that a client that hangs up does
--- not take it along, and waits for its result. After `patience` seconds a
--- token that still lives will do, and at once for a caller that may not wait.
---@param run fun(): string?, string?, string?
---@param living fun(): string?
---@param patience number seconds
---@return boolean started
---@return string? token
---@return string? message
---@return string? code
function M.apart(run, living, patience)
  local box = start(run)
  if not box then
    return false
  end
  local token
  if not M.can_yield() then
    token = living()
  else
    token = wait_until_landed(box, living, patience)
  end
  if token then
    return true, token
  elseif box.landed then
    return true, box.token, box.message, box.code
  end
  return true, nil, "A refresh has begun; there is no token until it ends.", "not_ready"
end

local hidden = " nginx hides the environment from its workers: a variable counts once the top of "
  .. "nginx.conf names it, as in \"%s\"."

local function has_proxy()
  for _, name in ipairs { "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY" } do
    if os.getenv(name) then
      return true
    end
  end
end

-- Only the failures of a program without its proxy: time also runs out
-- over a lock, or over a server that is slow. A server on this machine is
-- reached without one.
local function may_lack_proxy(message, code)
  local unreached = message:find("could not be reached", 1, true)
  local here = message:find("127.0.0.1", 1, true) or message:find("localhost", 1, true)
    or message:find("::1", 1, true)
  return (code == "network" or code == "timeout") and unreached and not here and not has_proxy()
end

--- A failure's message, with a hint when the environment may be the cause.
---@param message string
---@param code string
---@param default_path? boolean nobody has said where the tokens are kept
---@return string
function M.explain(message, code, default_path)
  if may_lack_proxy(message, code) then
    return message .. hidden:format("env https_proxy;")
  elseif code ~= "config" and code ~= "storage" then
    return message
  end
  local lines = {}
  for name in message:gmatch("LUCID_[%u_]+") do
    lines[#lines + 1] = not os.getenv(name) and "env " .. name .. ";" or nil
  end
  if default_path and not os.getenv("LUCID_TOKEN_FILE") then
    lines[#lines + 1] = "env LUCID_TOKEN_FILE;"
  end
  return #lines == 0 and message or message .. hidden:format(table.concat(lines, " "))
end

local levels = { refresh_failed = ngx.WARN, save_failed = ngx.ERR, lost = ngx.ERR }

--- The default handler of events: those that need attention are written to the
--- error log.
---@param event LucidEvent
function M.report(event)
  local level = levels[event.name]
  if level then
    local text = "lucidauth: %s (account %s): %s"
    ngx.log(level, text:format(event.name, printable(event.account), event.message))
  end
end

-- The master can read files that its workers cannot, as another user or in a
-- chroot: its workers inherit the modules that it loads. A worker loads the rest
-- at its first refresh.
local function load_early()
  if ngx.get_phase() == "init" then
    return core.sha256("")
  end
  return core.has_http()
end

local ready, message = load_early()
if not ready then
  M.complain("lucidauth: " .. message)
end

return loop.over(M)
