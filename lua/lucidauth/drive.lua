--- Carries refreshes out over a storage made of Lua functions. The core
--- decides each step; these functions may yield, and may fail.

local core = require "lucidauth.core"
local lock = require "lucidauth.lock"
local tables = require "lucidauth.tables"
local printable, sorted_keys = tables.printable, tables.sorted_keys
local storage = require "lucidauth.storage"
local work = require "lucidauth.work"

local M = {}

--- The flights of a client. An error may strike at any line, as from a debug
--- hook: a flight is entered here before it begins, so it is found again.
---@class lucidauth.Flights
---@field storage LucidStorage
---@field host? lucidauth.Host
---@field patience number seconds after which a call of a storage's function is given up
---@field spare? userdata a flight that is in the air on nobody's behalf, or not yet
---@field runs table<string, lucidauth.Run> by account: in the air, not over yet
---@field sent table<string, true> accounts that may have tokens which are not saved
---@field holds table<string, lucidauth.Hold> by account: the state of its lock
---@field doubts table<string, { since?: number }> accounts whose lock may be held unknown to us
---@field overdue table<lucidauth.Run, true> given up while they were saving
---@field logins table<string, lucidauth.Login> by account: outcomes that no caller was told yet
---@field closing? table the work of closing
---@field closed? boolean
---@field guard? any

--- One flight on its way. The coroutine that carries it out may be cut off; then
--- another one brings its outcome home.
---@class lucidauth.Run
---@field flight userdata not in the air any more: the run is over
---@field flights lucidauth.Flights
---@field handle userdata the client's core
---@field storage LucidStorage
---@field account string
---@field host? lucidauth.Host
---@field since? number when it asked for its last step, by core.ran
---@field looked? number when another caller last checked that it goes on
---@field missed? boolean and there was no check for a while before
---@field step? string the step that the flight asked for last
---@field argument? string|number
---@field seen? string the record that was loaded last
---@field newer? string a record that was saved since this one became overdue
---@field stores? boolean it stores the tokens of a login

--- The tokens of a login, for a caller that may not wait and asks again for the
--- outcome.
---@class lucidauth.Login
---@field answer string
---@field replace boolean
---@field run lucidauth.Run
---@field landed_at? number by core.ran
---@field stored? boolean
---@field message? string
---@field code? string

local steps, give_up = {}, nil

function steps.load(run)
  local result, text = storage.load(run.storage, run.account)
  run.seen = result == "ok" and text or nil
  return result, text
end

function steps.save(run, text)
  return storage.save(run.storage, run.account, text)
end

steps.lock = lock.take

function steps.unlock(run)
  lock.give(run)
  return "ok"
end

function steps.post(run)
  run.flights.sent[run.account] = true
  if run.host then
    run.host.post(run.flight)
  else
    run.flight:post()
  end
  return "ok"
end

local function wait_for(run, seconds)
  local sleep = run.storage.sleep or (run.host and run.host.sleep) or core.sleep
  core.ran(seconds)
  if not pcall(sleep, seconds) then
    core.sleep(seconds)
  end
end

-- Seconds: a caller that waits inside an event loop checks this often whether
-- the loop ends.
local longest_nap = 0.5

function steps.wait(run, seconds)
  local host = run.host
  local nap = host and longest_nap or seconds
  while seconds > 0 and run.flight:is_flying() do
    wait_for(run, math.min(nap, seconds))
    seconds = seconds - nap
    if host and host.is_ending() then
      give_up(run)
      lock.release(run.flights, run.account)
    end
  end
  return "ok"
end

local function deregister(run)
  local runs = run.flights.runs
  if runs[run.account] == run then
    runs[run.account] = nil
  end
end

local function land(run)
  local token, message, code = run.flight:finish()
  deregister(run)
  return token, message, code
end

local function broken_off(stores)
  if stores then
    return nil, "Storing the login's answer was broken off, since its client or its process ends, "
      .. "or since the storage took too long. Keep the answer, and store it again.", "not_ready"
  end
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
  run.since = core.ran()
  local result, text = steps[run.step](run, run.argument)
  if run.step == "save" and result == "ok" and run.flight:is_flying() then
    tell_the_overdue(run, run.argument)
  end
  return result, text
end

-- A record that was saved late stands over the one that has come after it: put
-- that one back.
local function put_back(run)
  local result, text = steps.load(run)
  local token_of = storage.refresh_token_of
  if result == "ok" and token_of(text) == token_of(run.argument) then
    steps.save(run, run.newer)
  end
end

local tries, pause = 100, 0.05

local function lock_at_last(run)
  for _ = 1, tries do
    if steps.lock(run) == "ok" then
      return true
    end
    wait_for(run, pause)
  end
end

-- Called when a run that was given up goes on after all, its step done.
local function make_good(run, result)
  if run.step == "lock" and result == "ok" then
    steps.unlock(run)
  elseif run.step == "save" and run.newer and lock_at_last(run) then
    put_back(run)
    steps.unlock(run)
  end
end

local function fly(run)
  if not run.flight:is_flying() then
    return broken_off(run.stores)
  end
  run.step, run.argument = run.flight:next()
  while run.step ~= "done" do
    local result, text = do_step(run)
    if not run.flight:is_flying() then
      make_good(run, result)
      return broken_off(run.stores)
    end
    run.step, run.argument = run.flight:next(result, text)
  end
  return land(run)
end

local function holds_unsaved(run)
  return run.handle:status(run.account).unsaved
end

local function clear_up(run)
  give_up(run)
  if not holds_unsaved(run) then
    lock.release(run.flights, run.account)
  end
end

local function carry_out(run)
  local ok, token, message, code = pcall(work.start, run, fly, run)
  if not ok then
    pcall(clear_up, run)
    error(token, 0)
  end
  return token, message, code
end

-- One that is to begin elsewhere has a second for it.
local shortest_patience = 1

-- A process that was stopped while nobody waited finds everybody's time over: it
-- looks once more, and lets others run, before it believes that.
local function has_taken(run, seconds)
  local now = core.ran()
  local missed = now - math.max(run.looked or 0, run.since) > shortest_patience
  run.looked, run.missed = now, missed and not run.missed
  return now - run.since > seconds and not run.missed
end

-- The coroutine that carried it out is cut off, or a storage's function has been
-- out for so long that it will not be resumed.
local function is_abandoned(run)
  if not run.busy then
    return not run.since or has_taken(run, shortest_patience)
  end
  return not work.is_under_way(run) or run.since and has_taken(run, run.flights.patience)
end

-- The next flight brings its outcome home. This function may be cut off at any
-- line and called once more.
function give_up(run)
  if run.step == "save" and work.is_under_way(run) then
    run.flights.overdue[run] = true
  end
  pcall(land, run)
end

local function drop_spare(flights)
  if flights.spare and flights.spare:is_flying() then
    flights.spare:finish()
  end
end

-- Calls a function with a flight that is to take off. It is known here before it
-- does, and as a run's afterwards.
local function launch(flights, handle, account, begin)
  drop_spare(flights)
  local flight = flights.spare or handle:new_flight()
  flights.spare = flight
  local begun, token, message, code = begin(flight)
  if not begun then
    return nil, token, message, code
  end
  local run = {
    flight = flight,
    flights = flights,
    handle = handle,
    storage = flights.storage,
    account = account,
    host = flights.host,
  }
  flights.runs[account] = run
  flights.spare = nil
  return run
end

-- Saves the tokens that could not be saved before; a failure does not stop the
-- rest. The last value is the account that it failed for.
local function save_unsaved(flights, handle)
  local failure, why, account
  for _, name in ipairs(sorted_keys(flights.sent)) do
    local run = launch(flights, handle, name, function(flight)
      return flight:keep(name)
    end)
    if run then
      local saved, message, code = carry_out(run)
      if not saved then
        failure, why, account = message, code, name
      end
    end
  end
  return not failure or nil, failure, why, account
end

local function end_flights(flights)
  drop_spare(flights)
  for _, name in ipairs(sorted_keys(flights.runs)) do
    give_up(flights.runs[name])
  end
end

local function release_all(flights)
  for _, name in ipairs(sorted_keys(flights.holds)) do
    lock.release(flights, name)
  end
end

local function bring_all_home(flights, handle)
  end_flights(flights)
  local saved, message, code, account = save_unsaved(flights, handle)
  if saved then
    release_all(flights)
    flights.closed = true
  end
  return saved, message, code, account
end

local function is_closing(flights)
  return flights.closing and work.is_under_way(flights.closing)
end

-- Ends the flights, brings the server's answers home, and gives the locks back.
-- Tokens that cannot be saved stay in memory, under their lock.
local function close(flights, handle)
  if flights.closed then
    return true
  elseif is_closing(flights) then
    return nil, "Another coroutine is closing this client. Nothing is lost.", "not_ready"
  end
  flights.closing = {}
  return work.start(flights.closing, bring_all_home, flights, handle)
end

local unsaved = "lucidauth: the answer to a refresh (account %s) could not be saved by a process "
  .. "that ends, where a storage's functions cannot wait: %s"

local function bring_home(flights, handle)
  flights.closing = nil
  local ok, saved, message, _, account = pcall(close, flights, handle)
  if ok and not saved and flights.host then
    flights.host.complain(unsaved:format(printable(account), message))
  end
  release_all(flights)
end

-- When the Lua state ends, as when nginx is told to stop at once, coroutines are
-- gone, but the finalizers still run: those of younger objects first, so that this
-- one still finds the core.
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

-- As a flight's begin(), or its store() for a table instead of `refresh`; a flight
-- whose coroutine does not go on stands in nobody's way.
local function take_off(flights, handle, account, refresh)
  local name = account or "default"
  local stores = type(refresh) == "table"
  if is_closing(flights) then
    return nil, broken_off(stores)
  end
  local former = flights.runs[name]
  if former and is_abandoned(former) then
    give_up(former)
  end
  flights.guard = flights.guard or guard(flights, handle)
  local run, token, message, code = launch(flights, handle, name, function(flight)
    if stores then
      return flight:store(account, refresh.answer, refresh.replace)
    end
    return flight:begin(account, refresh)
  end)
  if run then
    run.stores = stores
  end
  return run, token, message, code
end

local function new_flights(functions, timeout, host)
  return {
    storage = functions,
    host = host,
    patience = math.max(2 * timeout, shortest_patience),
    runs = {},
    logins = {},
    sent = {},
    holds = {},
    doubts = {},
    overdue = setmetatable({}, { __mode = "k" }),
  }
end

local function rests(flights)
  for _, run in pairs(flights.runs) do
    if run.step ~= "wait" then
      return false
    end
  end
  return true
end

--- A client's functions for its flights. `close` and `store` return true, or nil, a
--- message and a code when tokens could not be saved.
---@class lucidauth.Controls
---@field store fun(core: userdata, account: string?, login: table): true?, string?, string?
---@field rests fun(): boolean whether no flight is in the air but those that wait to try again
---@field close fun(core: userdata): true?, string?, string?

local function controls(flights, store)
  return {
    store = store,
    rests = function()
      return rests(flights)
    end,
    close = function(handle)
      return close(flights, handle)
    end,
  }
end

--- A function that gets a token by way of this storage, and the functions for the
--- flights.
---@param functions LucidStorage
---@param timeout number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return lucidauth.Controls
function M.over(functions, timeout)
  local flights = new_flights(functions, timeout)
  local function drive(handle, account, refresh)
    local run, token, message, code = take_off(flights, handle, account, refresh)
    if not run then
      return token, message, code
    end
    return carry_out(run)
  end
  return drive, controls(flights, drive)
end

-- The account's flight is in the air: another one is not, and brings no token
-- but the one in use.
local function living_token(flights, handle, account)
  local run, token = launch(flights, handle, account or "default", function(flight)
    return flight:begin(account, false)
  end)
  if run then
    return (land(run))
  end
  return token
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

local may_not_wait = "There is no token yet, and this caller may not wait: the main program and a "
  .. "function that C calls cannot yield. Nothing is lost; ask from a coroutine of the event loop."

-- For a caller that may not wait: the token in the storage, if it can be read
-- without yielding.
local function glance(run, refresh)
  run.step, run.argument = run.flight:next()
  if run.step == "load" and not refresh then
    local result, text = do_step(run)
    if result ~= "failed" and run.flight:is_flying() then
      run.step, run.argument = run.flight:next(result, text)
    end
  end
  if run.step == "done" then
    return land(run)
  end
  land(run)
  return nil, may_not_wait, "not_ready"
end

local stored_later = "The login's answer is not stored yet: something else is under way with "
  .. "this account's tokens, and this caller may not wait. Call again with the same answer "
  .. "in a moment."
local being_stored = "The login's answer is being stored. Call again with the same answer in a "
  .. "moment, and you hear what came of it."
local may_not_store = "The login's answer was not stored, since this caller may not wait: the "
  .. "main program and a function that C calls cannot yield. Nothing was changed; store it from a "
  .. "coroutine of the event loop."

local function no_token()
  return nil
end

local function is_under_way(flights, login)
  local run = login.run
  return not login.landed_at and flights.runs[run.account] == run and not is_abandoned(run)
end

-- The same answer, stored a moment ago by a caller that was not told the outcome.
local function find_login(flights, name, given)
  local login = flights.logins[name]
  local same = login and login.answer == given.answer and login.replace == given.replace
  local fresh = same and login.landed_at and core.ran() - login.landed_at < flights.patience
  return same and (fresh or is_under_way(flights, login)) and login or nil
end

local function carry_login_out(login)
  local ok, stored, message, code = pcall(carry_out, login.run)
  login.landed_at = core.ran()
  if not ok then
    login.message, login.code = select(2, broken_off(true))
    error(stored, 0)
  end
  login.stored, login.message, login.code = stored, message, code
  return stored, message, code
end

local function tell_login(flights, name, login)
  if flights.host.can_yield() then
    flights.host.wait_for(function()
      return not is_under_way(flights, login)
    end)
  end
  if is_under_way(flights, login) then
    return nil, being_stored, "not_ready"
  elseif flights.logins[name] == login then
    flights.logins[name] = nil
  end
  if not login.landed_at then
    return broken_off(true)
  end
  return login.stored, login.message, login.code
end

-- Carried out apart from its caller, which may not come back.
local function store_apart(flights, handle, account, given)
  local name, host = account or "default", flights.host
  local login = find_login(flights, name, given)
  if login then
    return tell_login(flights, name, login)
  end
  local run, _, message, code = begin(flights, handle, account, given)
  if not run then
    local waits = code == "not_ready" and not is_closing(flights)
    return nil, waits and stored_later or message, code
  end
  run.since = core.ran()
  login = { answer = given.answer, replace = given.replace, run = run }
  flights.logins[name] = login
  local started = host.apart(function()
    return carry_login_out(login)
  end, no_token, 0)
  if started then
    return tell_login(flights, name, login)
  end
  flights.logins[name] = nil
  land(run)
  return nil, may_not_store, "not_ready"
end

--- The same inside an event loop: the flight is carried out apart from its
--- caller, which may be cut off, and a token that still lives is handed out after
--- `patience` seconds, or at once to a caller that may not wait.
---@param functions LucidStorage
---@param timeout number seconds
---@param host lucidauth.Host
---@param patience number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return lucidauth.Controls
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
    run.since = core.ran()
    local started
    started, token, message, code = host.apart(function()
      return carry_out(run)
    end, function()
      return not refresh and living_token(flights, handle, account)
    end, patience)
    if started then
      return token, message, code
    end
    return glance(run, refresh)
  end
  local function store(handle, account, given)
    local _, refusal, why = host.refusal(true)
    if refusal then
      return nil, refusal, why
    end
    return store_apart(flights, handle, account, given)
  end
  return drive, controls(flights, store)
end

return M
