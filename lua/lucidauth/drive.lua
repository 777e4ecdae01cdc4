--- Carries refreshes out over a storage made of Lua functions. The core
--- decides each step; these functions may yield, and may fail.

local cjson = require "cjson.safe"
local core = require "lucidauth.core"

local json = cjson.new()
-- Expiries fit into the default's fourteen digits, other numbers may not. The
-- original lua-cjson raises when it is asked for more, and knows no empty list.
pcall(json.encode_number_precision, 16)
if json.decode_array_with_array_mt then
  json.decode_array_with_array_mt(true)
end
-- A server may send a number that no double holds, and lists within lists; the
-- record stays readable.
json.encode_invalid_numbers("null")
json.encode_max_depth(4000)
json.decode_max_depth(4000)

local M = {}

local longest = 300

-- Whatever is raised, even an object whose text cannot be had.
local function text_of(reason)
  local ok, text = pcall(tostring, reason)
  return ok and text or type(reason)
end

-- What a storage says of its failure may quote the record: the one in hand, or
-- one that could not be read, whose tokens nobody knows.
local function without_secrets(text, record)
  for _, name in ipairs { "access_token", "refresh_token" } do
    local secret = record and record[name]
    if type(secret) == "string" and secret ~= "" then
      text = text:gsub(secret:gsub("%p", "%%%0"), "[secret]")
    end
  end
  text = text:gsub("(_token[\"'%]]*%s*[=:]%s*[\"']?)[^%s\"',;}]+", "%1[secret]")
  return #text > longest and text:sub(1, longest) .. "..." or text
end

local function failed(what, reason, record)
  local text = without_secrets(text_of(reason), record)
  local message = "The storage's function %s failed: %s. No stored token was lost."
  return "failed", message:format(what, text)
end

--- The flights of a client.
---@class lucidauth.Fleet
---@field storage LucidStorage
---@field host? table lucidauth.nginx
---@field patience number seconds after which a call of a storage's function is given up
---@field courses table<string, lucidauth.Course> by account: in the air, not over yet
---@field sent table<string, true> accounts that may have tokens which are not saved
---@field locked table<string, integer> accounts whose lock is held, and by which process
---@field astray table<lucidauth.Course, true> given up while they were saving
---@field closing? boolean no flight is to begin any more
---@field closed? boolean
---@field guard? any

--- One flight on its way. Whoever carries it out may be cut off, and what has
--- come of it is then somebody else's to bring home.
---@class lucidauth.Course
---@field flight userdata
---@field fleet lucidauth.Fleet
---@field storage LucidStorage
---@field account string
---@field host? table lucidauth.nginx
---@field crew? { [1]: thread } the coroutine that carries it out, unless it is collected
---@field since? number when it asked for its last step, by core.clock
---@field step? string what the flight asked for last
---@field argument? string|number
---@field newer? string a record that was saved since this one went astray
---@field over? boolean

local steps, give_up, release = {}, nil, nil

-- A reason counts beside nil or false alone: a function may end with a call
-- that has more to say than that it worked, as os.execute or pcall.

function steps.load(course)
  local ok, record, reason = pcall(course.storage.load, course.account)
  if not ok then
    return failed("load", record)
  elseif not record and reason ~= nil then
    return failed("load", reason)
  elseif record == nil then
    return "none"
  elseif type(record) ~= "table" then
    return failed("load", "it must return a record (a table) or nil, not a " .. type(record))
  end
  local text, message = json.encode(record)
  if not text then
    return failed("load", "what it returned is no record: " .. message, record)
  end
  return "did", text
end

function steps.save(course, text)
  local record, message = json.decode(text)
  if not record then
    return failed("save", message)
  end
  local ok, saved, reason = pcall(course.storage.save, course.account, record)
  if not ok then
    return failed("save", saved, json.decode(text))
  elseif not saved and reason ~= nil then
    return failed("save", reason, json.decode(text))
  elseif saved == false or saved == cjson.null then
    return failed("save", "it returned " .. tostring(saved), json.decode(text))
  end
  return "did"
end

local taken = "it must return true, or a text or a table, once it has the lock, and false or nil "
  .. "while somebody else has it; it returned "

local says_taken = { boolean = true, string = true, table = true }

-- Drivers return nil or a null for a key that is there already. What could mean
-- either is not guessed at: two holders would spend one token twice.
local function result_of_lock(course, ok, ...)
  local locked, reason = ...
  if not ok then
    return failed("lock", locked)
  elseif not locked and reason ~= nil then
    return failed("lock", reason)
  elseif select("#", ...) == 0 then
    return failed("lock", taken .. "no value")
  elseif not locked or locked == cjson.null then
    return "busy"
  elseif not says_taken[type(locked)] then
    return failed("lock", taken .. "a " .. type(locked))
  end
  course.fleet.locked[course.account] = core.process()
  return "did"
end

function steps.lock(course)
  local lock = course.storage.lock
  if not lock then
    return "did"
  end
  return result_of_lock(course, pcall(lock, course.account))
end

-- There is nothing to be done about an unlock that fails: whoever comes next
-- finds the record as it was saved.
function steps.unlock(course)
  course.fleet.locked[course.account] = nil
  if course.storage.unlock then
    pcall(course.storage.unlock, course.account)
  end
  return "did"
end

function steps.post(course)
  course.fleet.sent[course.account] = true
  if course.host then
    course.host.post(course.flight)
  else
    course.flight:post()
  end
  return "did"
end

local function wait_for(course, seconds)
  local sleep = course.storage.sleep or (course.host and course.host.sleep) or core.sleep
  if not pcall(sleep, seconds) then
    core.sleep(seconds)
  end
end

-- Seconds after which one who waits inside an event loop looks whether it ends.
local longest_nap = 0.5

function steps.wait(course, seconds)
  local host = course.host
  local nap = host and longest_nap or seconds
  while seconds > 0 and not course.over do
    wait_for(course, math.min(nap, seconds))
    seconds = seconds - nap
    if host and host.is_ending() then
      give_up(course)
      release(course.fleet, course.account)
    end
  end
  return "did"
end

local function is_landed(course)
  return course.over or course.step == "done"
end

local function land(course)
  local courses = course.fleet.courses
  course.over = true
  if courses[course.account] == course then
    courses[course.account] = nil
  end
  return course.flight:finish()
end

local function broken_off()
  return nil, "A refresh was broken off, since its client or its process ends, or since the "
    .. "storage took too long. Nothing was lost; ask again.", "not_ready"
end

local function tell_the_astray(course, text)
  for other in pairs(course.fleet.astray) do
    if other.account == course.account and other.argument ~= text then
      other.newer = text
    end
  end
end

local function do_step(course)
  course.since = core.clock()
  local result, text = steps[course.step](course, course.argument)
  if course.step == "save" and result == "did" and not course.over then
    tell_the_astray(course, course.argument)
  end
  return result, text
end

local function refresh_token_of(text)
  local record = json.decode(text)
  return record and record.refresh_token
end

-- A record that was saved late stands over the one that has come after it: put
-- that one back.
local function put_back(course)
  local result, text = steps.load(course)
  if result == "did" and refresh_token_of(text) == refresh_token_of(course.argument) then
    steps.save(course, course.newer)
  end
end

local tries, pause = 100, 0.05

local function lock_at_last(course)
  for _ = 1, tries do
    if steps.lock(course) == "did" then
      return true
    end
    wait_for(course, pause)
  end
end

-- Called when a course that was given up goes on after all, its step done.
local function make_good(course, result)
  if course.step == "lock" and result == "did" then
    steps.unlock(course)
  elseif course.step == "save" and course.newer and lock_at_last(course) then
    put_back(course)
    steps.unlock(course)
  end
end

-- Elsewhere than in nginx, which gives other requests' coroutines out as dead.
local in_nginx = package.loaded.ngx ~= nil
local weak = { __mode = "v" }

local function sign_on(course)
  local thread, is_main = coroutine.running()
  if thread and not is_main and not in_nginx then
    course.crew = setmetatable({ thread }, weak)
  end
end

local function fly(course)
  sign_on(course)
  course.step, course.argument = course.flight:next()
  while not is_landed(course) do
    local result, text = do_step(course)
    if course.over then
      make_good(course, result)
      return broken_off()
    end
    course.step, course.argument = course.flight:next(result, text)
  end
  return land(course)
end

local function carry_out(course)
  local ok, token, message, code = pcall(fly, course)
  if not ok then
    give_up(course)
    error(token, 0)
  end
  return token, message, code
end

-- The coroutine is gone, or a storage's function has been out for so long that
-- nobody is going to resume it.
local function is_abandoned(course)
  local crew = course.crew
  if crew and (not crew[1] or coroutine.status(crew[1]) == "dead") then
    return true
  end
  return course.since and core.clock() - course.since > course.fleet.patience
end

-- The next flight goes on from there, under the lock if it is held. Whether an
-- unlock that is out has happened is not known: there is no lock to go on under.
function give_up(course)
  if course.over then
    return
  end
  if course.step == "save" then
    course.fleet.astray[course] = true
  elseif course.step == "unlock" then
    pcall(course.flight.next, course.flight, "did")
  end
  pcall(land, course)
end

-- Gives a lock back that the next flight would go on under. In the child of a
-- fork it is the parent's.
function release(fleet, account)
  if fleet.locked[account] == core.process() then
    steps.unlock({ fleet = fleet, storage = fleet.storage, account = account })
  end
end

local function new_course(fleet, flight, account)
  local course = {
    flight = flight,
    fleet = fleet,
    storage = fleet.storage,
    account = account,
    host = fleet.host,
  }
  fleet.courses[account] = course
  return course
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- Saves what could not be saved before; what fails does not stop the rest. The
-- last value is the account that it failed for.
local function save_unsaved(fleet, handle)
  local failure, why, account
  for _, name in ipairs(sorted(fleet.sent)) do
    local flight = handle:keep(name)
    if flight then
      local saved, message, code = carry_out(new_course(fleet, flight, name))
      if not saved then
        failure, why, account = message, code, name
      end
    end
  end
  return not failure or nil, failure, why, account
end

local function end_flights(fleet)
  for _, name in ipairs(sorted(fleet.courses)) do
    give_up(fleet.courses[name])
  end
end

local function release_all(fleet)
  for _, name in ipairs(sorted(fleet.locked)) do
    release(fleet, name)
  end
end

-- Ends the flights, brings home what the server has answered, and gives the
-- locks back. What cannot be saved stays, under its lock.
local function close(fleet, handle)
  if fleet.closed then
    return true
  elseif fleet.closing then
    return nil, "Another coroutine is closing this client. Nothing is lost.", "not_ready"
  end
  fleet.closing = true
  end_flights(fleet)
  local saved, message, code, account = save_unsaved(fleet, handle)
  if saved then
    release_all(fleet)
  end
  fleet.closing, fleet.closed = false, saved
  return saved, message, code, account
end

local unsaved = "lucidauth: the answer to a refresh (account %s) could not be saved by a process "
  .. "that ends, where a storage's functions cannot wait: %s"

local function bring_home(fleet, handle)
  local ok, saved, message, _, account = pcall(close, fleet, handle)
  if ok and not saved and fleet.host then
    fleet.host.complain(unsaved:format(account, message))
  end
  release_all(fleet)
end

-- When the Lua state ends, as when nginx is told to stop at once, coroutines are
-- gone and what is to be collected still has its turn: younger things first, so
-- that this one still finds the core.
local function guard(fleet, handle)
  local function last_try()
    if not fleet.closed and fleet.host then
      fleet.host.outside_requests(bring_home, fleet, handle)
    elseif not fleet.closed then
      bring_home(fleet, handle)
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
local function take_off(fleet, handle, account, refresh)
  local name = account or "default"
  if fleet.closing then
    return nil, broken_off()
  end
  local former = fleet.courses[name]
  if former and is_abandoned(former) then
    give_up(former)
  end
  local flight, token, message, code = handle:flight(account, refresh)
  if not flight then
    return nil, token, message, code
  end
  fleet.guard = fleet.guard or guard(fleet, handle)
  return new_course(fleet, flight, name)
end

local shortest_patience = 1

local function new_fleet(storage, timeout, host)
  return {
    storage = storage,
    host = host,
    patience = math.max(2 * timeout, shortest_patience),
    courses = {},
    sent = {},
    locked = {},
    astray = setmetatable({}, { __mode = "k" }),
  }
end

--- Whether no flight is in the air but those that wait to try again.
local function rests(fleet)
  for _, course in pairs(fleet.courses) do
    if course.step ~= "wait" then
      return false
    end
  end
  return true
end

-- What a client does with its fleet.
local function helm(fleet)
  return {
    rests = function()
      return rests(fleet)
    end,
    close = function(handle)
      return close(fleet, handle)
    end,
  }
end

--- A function that gets a token by way of this storage, and what else can be
--- done with the flights: `close` returns true, or nil, message, code when tokens
--- could not be saved.
---@param storage LucidStorage
---@param timeout number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return { rests: fun(): boolean, close: fun(core: userdata): true?, string?, string? }
function M.over(storage, timeout)
  local fleet = new_fleet(storage, timeout)
  return function(handle, account, refresh)
    local course, token, message, code = take_off(fleet, handle, account, refresh)
    if not course then
      return token, message, code
    end
    return carry_out(course)
  end, helm(fleet)
end

-- Another coroutine's flight is waited for.
local function begin(fleet, handle, account, refresh)
  local course, token, message, code
  local function try()
    course, token, message, code = take_off(fleet, handle, account, refresh)
    return course or token or code ~= "not_ready"
  end
  if not try() and fleet.host.can_yield() then
    fleet.host.wait_for(try)
  end
  return course, token, message, code
end

--- The same inside an event loop: the flight is carried out apart from its
--- caller, who may be cut off, and a token that still lives is handed out after
--- `patience` seconds, or at once to a caller that may not wait.
---@param storage LucidStorage
---@param timeout number seconds
---@param host table lucidauth.nginx
---@param patience number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return table as above
function M.apart(storage, timeout, host, patience)
  local fleet = new_fleet(storage, timeout, host)
  local function drive(handle, account, refresh)
    local _, refusal, why = host.refusal()
    if refusal then
      return nil, refusal, why
    end
    local course, token, message, code = begin(fleet, handle, account, refresh)
    if not course then
      return token, message, code
    end
    local started
    started, token, message, code = host.apart(function()
      return carry_out(course)
    end, function()
      -- the account's flight is in the air: this begins no other
      local _, living = handle:flight(account, false)
      return not refresh and living or nil
    end, patience)
    if started then
      return token, message, code
    end
    return land(course)
  end
  return drive, helm(fleet)
end

return M
