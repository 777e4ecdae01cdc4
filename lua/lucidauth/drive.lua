--- Carries refreshes out over a storage made of Lua functions. The core
--- decides each step; these functions may yield, and may fail.

local core = require "lucidauth.core"
local sorted_keys = require "lucidauth.tables".sorted_keys
local storage = require "lucidauth.storage"

local M = {}

--- The flights of a client.
---@class lucidauth.Flights
---@field storage LucidStorage
---@field host? table lucidauth.nginx
---@field patience number seconds after which a call of a storage's function is given up
---@field runs table<string, lucidauth.Run> by account: in the air, not over yet
---@field sent table<string, true> accounts that may have tokens which are not saved
---@field locked table<string, integer> accounts whose lock is held, and by which process
---@field overdue table<lucidauth.Run, true> given up while they were saving
---@field closing? boolean no flight is to begin any more
---@field closed? boolean
---@field guard? any

--- One flight on its way. Whoever carries it out may be cut off, and what has
--- come of it is then somebody else's to bring home.
---@class lucidauth.Run
---@field flight userdata
---@field flights lucidauth.Flights
---@field storage LucidStorage
---@field account string
---@field host? table lucidauth.nginx
---@field carrier? { [1]: thread } the coroutine that carries it out, unless it is collected
---@field since? number when it asked for its last step, by core.clock
---@field step? string what the flight asked for last
---@field argument? string|number
---@field newer? string a record that was saved since this one became overdue
---@field over? boolean

local steps, give_up, release = {}, nil, nil

function steps.load(run)
  return storage.load(run.storage, run.account)
end

function steps.save(run, text)
  return storage.save(run.storage, run.account, text)
end

function steps.lock(run)
  local result, message = storage.lock(run.storage, run.account)
  if result == "did" and run.storage.lock then
    run.flights.locked[run.account] = core.process()
  end
  return result, message
end

function steps.unlock(run)
  run.flights.locked[run.account] = nil
  storage.unlock(run.storage, run.account)
  return "did"
end

function steps.post(run)
  run.flights.sent[run.account] = true
  if run.host then
    run.host.post(run.flight)
  else
    run.flight:post()
  end
  return "did"
end

local function wait_for(run, seconds)
  local sleep = run.storage.sleep or (run.host and run.host.sleep) or core.sleep
  if not pcall(sleep, seconds) then
    core.sleep(seconds)
  end
end

-- Seconds after which one who waits inside an event loop looks whether it ends.
local longest_nap = 0.5

function steps.wait(run, seconds)
  local host = run.host
  local nap = host and longest_nap or seconds
  while seconds > 0 and not run.over do
    wait_for(run, math.min(nap, seconds))
    seconds = seconds - nap
    if host and host.is_ending() then
      give_up(run)
      release(run.flights, run.account)
    end
  end
  return "did"
end

local function is_landed(run)
  return run.over or run.step == "done"
end

local function land(run)
  local runs = run.flights.runs
  run.over = true
  if runs[run.account] == run then
    runs[run.account] = nil
  end
  return run.flight:finish()
end

local function broken_off()
  return nil, "A refresh was broken off, since its client or its process ends, or since the "
    .. "storage took too long. Nothing was lost; ask again.", "not_ready"
end

local function tell_the_overdue(run, text)
  for other in pairs(run.flights.overdue) do
    if other.account == run.account and other.argument ~= text then
      other.newer = text
    end
  end
end

local function do_step(run)
  run.since = core.clock()
  local result, text = steps[run.step](run, run.argument)
  if run.step == "save" and result == "did" and not run.over then
    tell_the_overdue(run, run.argument)
  end
  return result, text
end

-- A record that was saved late stands over the one that has come after it: put
-- that one back.
local function put_back(run)
  local result, text = steps.load(run)
  local token_of = storage.refresh_token_of
  if result == "did" and token_of(text) == token_of(run.argument) then
    steps.save(run, run.newer)
  end
end

local tries, pause = 100, 0.05

local function lock_at_last(run)
  for _ = 1, tries do
    if steps.lock(run) == "did" then
      return true
    end
    wait_for(run, pause)
  end
end

-- Called when a run that was given up goes on after all, its step done.
local function make_good(run, result)
  if run.step == "lock" and result == "did" then
    steps.unlock(run)
  elseif run.step == "save" and run.newer and lock_at_last(run) then
    put_back(run)
    steps.unlock(run)
  end
end

-- Elsewhere than in nginx, which gives other requests' coroutines out as dead.
local in_nginx = package.loaded.ngx ~= nil
local weak = { __mode = "v" }

local function remember_carrier(run)
  local thread, is_main = coroutine.running()
  if thread and not is_main and not in_nginx then
    run.carrier = setmetatable({ thread }, weak)
  end
end

local function fly(run)
  remember_carrier(run)
  run.step, run.argument = run.flight:next()
  while not is_landed(run) do
    local result, text = do_step(run)
    if run.over then
      make_good(run, result)
      return broken_off()
    end
    run.step, run.argument = run.flight:next(result, text)
  end
  return land(run)
end

local function carry_out(run)
  local ok, token, message, code = pcall(fly, run)
  if not ok then
    give_up(run)
    error(token, 0)
  end
  return token, message, code
end

-- The coroutine is gone, or a storage's function has been out for so long that
-- nobody is going to resume it.
local function is_abandoned(run)
  local carrier = run.carrier
  if carrier and (not carrier[1] or coroutine.status(carrier[1]) == "dead") then
    return true
  end
  return run.since and core.clock() - run.since > run.flights.patience
end

-- The next flight goes on from there, under the lock if it is held. Whether an
-- unlock that is out has happened is not known: there is no lock to go on under.
function give_up(run)
  if run.over then
    return
  end
  if run.step == "save" then
    run.flights.overdue[run] = true
  elseif run.step == "unlock" then
    pcall(run.flight.next, run.flight, "did")
  end
  pcall(land, run)
end

-- Gives a lock back that the next flight would go on under. In the child of a
-- fork it is the parent's.
function release(flights, account)
  if flights.locked[account] == core.process() then
    steps.unlock({ flights = flights, storage = flights.storage, account = account })
  end
end

local function new_run(flights, flight, account)
  local run = {
    flight = flight,
    flights = flights,
    storage = flights.storage,
    account = account,
    host = flights.host,
  }
  flights.runs[account] = run
  return run
end

-- Saves what could not be saved before; what fails does not stop the rest. The
-- last value is the account that it failed for.
local function save_unsaved(flights, handle)
  local failure, why, account
  for _, name in ipairs(sorted_keys(flights.sent)) do
    local flight = handle:keep(name)
    if flight then
      local saved, message, code = carry_out(new_run(flights, flight, name))
      if not saved then
        failure, why, account = message, code, name
      end
    end
  end
  return not failure or nil, failure, why, account
end

local function end_flights(flights)
  for _, name in ipairs(sorted_keys(flights.runs)) do
    give_up(flights.runs[name])
  end
end

local function release_all(flights)
  for _, name in ipairs(sorted_keys(flights.locked)) do
    release(flights, name)
  end
end

-- Ends the flights, brings home what the server has answered, and gives the
-- locks back. What cannot be saved stays, under its lock.
local function close(flights, handle)
  if flights.closed then
    return true
  elseif flights.closing then
    return nil, "Another coroutine is closing this client. Nothing is lost.", "not_ready"
  end
  flights.closing = true
  end_flights(flights)
  local saved, message, code, account = save_unsaved(flights, handle)
  if saved then
    release_all(flights)
  end
  flights.closing, flights.closed = false, saved
  return saved, message, code, account
end

local unsaved = "lucidauth: the answer to a refresh (account %s) could not be saved by a process "
  .. "that ends, where a storage's functions cannot wait: %s"

local function bring_home(flights, handle)
  local ok, saved, message, _, account = pcall(close, flights, handle)
  if ok and not saved and flights.host then
    flights.host.complain(unsaved:format(account, message))
  end
  release_all(flights)
end

-- When the Lua state ends, as when nginx is told to stop at once, coroutines are
-- gone and what is to be collected still has its turn: younger things first, so
-- that this one still finds the core.
local function guard(flights, handle)
  local function last_try()
    if not flights.closed and flights.host then
      flights.host.outside_requests(bring_home, flights, handle)
    elseif not flights.closed then
      bring_home(flights, handle)
    end
  end
  if not newproxy then
    return setmetatable({}, { __gc = last_try })
  end
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = last_try
  return proxy
end

-- As flight() of the core; a flight whose coroutine does not go on stands in
-- nobody's way.
local function take_off(flights, handle, account, refresh)
  local name = account or "default"
  if flights.closing then
    return nil, broken_off()
  end
  local former = flights.runs[name]
  if former and is_abandoned(former) then
    give_up(former)
  end
  local flight, token, message, code = handle:flight(account, refresh)
  if not flight then
    return nil, token, message, code
  end
  flights.guard = flights.guard or guard(flights, handle)
  return new_run(flights, flight, name)
end

local shortest_patience = 1

local function new_flights(functions, timeout, host)
  return {
    storage = functions,
    host = host,
    patience = math.max(2 * timeout, shortest_patience),
    runs = {},
    sent = {},
    locked = {},
    overdue = setmetatable({}, { __mode = "k" }),
  }
end

--- Whether no flight is in the air but those that wait to try again.
local function rests(flights)
  for _, run in pairs(flights.runs) do
    if run.step ~= "wait" then
      return false
    end
  end
  return true
end

-- What a client does with its flights.
local function controls(flights)
  return {
    rests = function()
      return rests(flights)
    end,
    close = function(handle)
      return close(flights, handle)
    end,
  }
end

--- A function that gets a token by way of this storage, and what else can be
--- done with the flights: `close` returns true, or nil, message, code when tokens
--- could not be saved.
---@param functions LucidStorage
---@param timeout number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return { rests: fun(): boolean, close: fun(core: userdata): true?, string?, string? }
function M.over(functions, timeout)
  local flights = new_flights(functions, timeout)
  return function(handle, account, refresh)
    local run, token, message, code = take_off(flights, handle, account, refresh)
    if not run then
      return token, message, code
    end
    return carry_out(run)
  end, controls(flights)
end

-- Another coroutine's flight is waited for.
local function begin(flights, handle, account, refresh)
  local run, token, message, code
  local function try()
    run, token, message, code = take_off(flights, handle, account, refresh)
    return run or token or code ~= "not_ready"
  end
  if not try() and flights.host.can_yield() then
    flights.host.wait_for(try)
  end
  return run, token, message, code
end

--- The same inside an event loop: the flight is carried out apart from its
--- caller, who may be cut off, and a token that still lives is handed out after
--- `patience` seconds, or at once to a caller that may not wait.
---@param functions LucidStorage
---@param timeout number seconds
---@param host table lucidauth.nginx
---@param patience number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return table as above
function M.apart(functions, timeout, host, patience)
  local flights = new_flights(functions, timeout, host)
  local function drive(handle, account, refresh)
    local _, refusal, why = host.refusal()
    if refusal then
      return nil, refusal, why
    end
    local run, token, message, code = begin(flights, handle, account, refresh)
    if not run then
      return token, message, code
    end
    local started
    started, token, message, code = host.apart(function()
      return carry_out(run)
    end, function()
      -- the account's flight is in the air: this begins no other
      local _, living = handle:flight(account, false)
      return not refresh and living or nil
    end, patience)
    if started then
      return token, message, code
    end
    return land(run)
  end
  return drive, controls(flights)
end

return M
