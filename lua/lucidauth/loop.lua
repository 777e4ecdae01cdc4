--- Inside an event loop: a caller that has to wait yields to the loop, while the
--- background's thread works. A caller that may not wait gets the token that still
--- lives, or "not_ready".

local core = require "lucidauth.core"

local M = {}

--- The functions of an event loop, and those that `over` adds.
---@class lucidauth.Host
---@field sleep fun(seconds: number) yields to the loop
---@field can_yield fun(): boolean
---@field is_ending fun(): boolean whether the loop is about to end
---@field refusal fun(stores?: boolean): nil, string?, string? the answer where no token can be
--- had, or stored
---@field leaving table<userdata, true> the cores of clients that are about to close

local shortest, longest = 0.001, 0.05

-- Many loops count in milliseconds. This is exact when multiplied by a thousand.
local function whole(seconds)
  return math.max(1, math.ceil(seconds * 1000 - 0.001)) / 1000
end

-- A caller that waits for a token looks again within this time, and finds a flight
-- that has landed.
local last_look = 2 * longest

local function nap(host, seconds)
  core.ran(seconds)
  host.sleep(whole(seconds))
end

local function add_waiting(host)
  --- Calls a function until it returns a true value, with pauses in between in
  --- which the loop does other things. It may say in how many seconds to expect
  --- an answer: no pause outlasts them, and then they are short again.
  ---@generic T
  ---@param ask fun(): T?, number?
  ---@return T
  function host.wait_for(ask)
    local pause = shortest
    local answer, left = ask()
    while not answer do
      if left and left > 0 and left < pause then
        nap(host, left)
        pause = shortest
      else
        nap(host, pause)
        pause = math.min(pause * 2, longest)
      end
      answer, left = ask()
    end
    return answer
  end

  --- Waits until no refresh is in the air and nobody waits for one, and closes.
  function host.close_when_all_is_over(is_idle, has_waiters, close)
    host.wait_for(is_idle)
    local until_then = core.ran() + last_look
    host.wait_for(function()
      return not has_waiters() or core.ran() > until_then
    end)
    return close()
  end
end

local function add_tokens(host)
  --- One look for a token; never waits. For a caller that may not, the storage
  --- is read if there is none in memory.
  function host.look(handle, ticket, account)
    local _, message, code = host.refusal()
    if message then
      return nil, message, code
    end
    return handle:poll(ticket, account, host.can_yield())
  end

  --- Stores the tokens of a login on the background's thread; yields meanwhile. A
  --- caller that may not wait gets the outcome at a later call.
  function host.store(handle, account, login)
    local ticket = core.ticket(false)
    local stored, message, code, left
    local function ask()
      stored, message, code, left =
        handle:poll_store(ticket, account, login.answer, login.replace)
      return stored or not left or host.leaving[handle] and handle:leave()
    end
    if not ask() and host.can_yield() then
      host.wait_for(ask)
    end
    return stored, message, code
  end

  --- A token from the background's thread; yields while it is refreshed.
  ---@param handle userdata the client's core
  ---@param account? string
  ---@param refresh boolean
  ---@return string? token
  ---@return string? message
  ---@return string? code
  function host.obtain(handle, account, refresh)
    local ticket = core.ticket(refresh)
    local token, message, code, left = host.look(handle, ticket, account)
    if token or code ~= "not_ready" or not host.can_yield() then
      return token, message, code
    elseif not left then
      -- there is no thread, nor will there be one: as for a caller that may not wait
      return handle:poll(ticket, account, false)
    end
    host.wait_for(function()
      token, message, code, left = handle:poll(ticket, account, true)
      if code == "not_ready" and host.leaving[handle] and handle:leave() then
        -- nothing more will come, but something may have since the look
        token, message, code = handle:poll(ticket, account, true)
        return true
      end
      return token or code ~= "not_ready" or not left, left
    end)
    return token, message, code
  end

  --- A POST by the background's thread.
  function host.post(flight)
    flight:start_post()
    host.wait_for(function()
      return flight:has_posted()
    end)
  end
end

--- Adds the functions that are the same in every loop.
---@param host table
---@return lucidauth.Host
function M.over(host)
  host.leaving = setmetatable({}, { __mode = "k" })
  add_waiting(host)
  add_tokens(host)
  return host
end

-- Lua before 5.3 tells of the main program alone; `running` says nothing there,
-- or that it is the main one.
local function can_yield()
  local running, is_main = coroutine.running()
  return running ~= nil and not is_main and core.can_yield()
end

local function carry_out_here(run)
  if can_yield() then
    return true, run()
  end
  return false
end

local function no()
  return false
end

local function nothing()
  return nil
end

--- Any event loop of which one thing is known: how to wait in it.
---@param sleep fun(seconds: number)
---@return lucidauth.Host
function M.by(sleep)
  local host = M.over {
    sleep = sleep,
    can_yield = can_yield,
    is_ending = no,
    refusal = nothing,
    apart = carry_out_here,
    outside_requests = pcall,
  }

  -- Outside the loop, as when it has ended, nobody is held up.
  function host.close_when_idle(is_idle, has_waiters, close)
    if can_yield() then
      return host.close_when_all_is_over(is_idle, has_waiters, close)
    end
    return close()
  end

  function host.complain(text)
    io.stderr:write(text, "\n")
  end

  function host.explain(message)
    return message
  end
  return host
end

return M
