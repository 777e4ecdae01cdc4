--- Inside nginx: whoever must wait yields to the event loop, and whoever may
--- not gets the token that still lives, or "not_ready".

local ngx = ngx
local core = require "lucidauth.core"

local M = { sleep = ngx.sleep }

local shortest, longest = 0.001, 0.05

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

--- Whether the code that runs now may wait.
---@return boolean
function M.can_yield()
  return may_yield[ngx.get_phase()] == true
end

--- Calls a function until it returns a true value, with pauses in between in
--- which nginx does other things.
---@generic T
---@param ask fun(): T?
---@return T
function M.wait_for(ask)
  local pause = shortest
  local answer = ask()
  while not answer do
    ngx.sleep(pause)
    pause = math.min(pause * 2, longest)
    answer = ask()
  end
  return answer
end

local in_master = "There is no token in init_by_lua: nginx's master process keeps none. Ask in "
  .. "init_worker_by_lua or later."

--- One look for a token; never waits.
function M.look(handle, ticket, account)
  if ngx.get_phase() == "init" then
    return nil, in_master, "not_ready"
  end
  return handle:poll(ticket, account, M.can_yield())
end

--- A token from the background's thread; yields while it is refreshed.
---@param handle userdata the client's core
---@param account? string
---@param refresh boolean
---@return string? token
---@return string? message
---@return string? code
function M.obtain(handle, account, refresh)
  local ticket = core.ticket(refresh)
  local token, message, code = M.look(handle, ticket, account)
  if token or code ~= "not_ready" or not M.can_yield() then
    return token, message, code
  end
  M.wait_for(function()
    token, message, code = handle:poll(ticket, account, true)
    return token or code ~= "not_ready"
  end)
  return token, message, code
end

--- A POST by the background's thread.
function M.post(flight)
  flight:start_post()
  M.wait_for(function()
    return flight:has_posted()
  end)
end

local function start_timer(run)
  local box = {}
  local started, message = ngx.timer.at(0, function()
    box.results = { run() }
  end)
  if not started then
    -- too many timers: then this coroutine does it itself
    ngx.log(ngx.WARN, "lucidauth: no timer for a refresh: ", message)
    box.results = { run() }
  end
  return box
end

--- Runs a function on a timer's coroutine, so that a client that hangs up does
--- not take it along, and waits for what it returns. After `patience` seconds
--- `otherwise` may have something for the caller, and at once for one that may
--- not wait.
---@param run fun(): any, any, any
---@param otherwise fun(): any
---@param patience number seconds
---@return any, any, any
function M.apart(run, otherwise, patience)
  local box = start_timer(run)
  local until_then = ngx.now() + patience
  local other
  if M.can_yield() then
    M.wait_for(function()
      other = ngx.now() >= until_then and otherwise()
      return box.results or other
    end)
  end
  if box.results then
    return box.results[1], box.results[2], box.results[3]
  end
  other = other or otherwise()
  if other then
    return other
  end
  return nil, "A refresh has begun; there is no token until it ends.", "not_ready"
end

return M
