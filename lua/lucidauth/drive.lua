--- Carries refreshes out over a storage made of Lua functions. The core
--- decides each step; these functions may yield, and may fail.

local cjson = require "cjson.safe"
local core = require "lucidauth.core"

local json = cjson.new()
-- Expiries fit into the default's fourteen digits, other numbers may not. The
-- original lua-cjson raises when it is asked for more.
pcall(json.encode_number_precision, 16)
-- A server may send a number that no double holds; the record stays readable.
json.encode_invalid_numbers("null")

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

--- One flight on its way. Whoever carries it out may be cut off, and what has
--- come of it is then somebody else's to bring home.
---@class lucidauth.Course
---@field flight userdata
---@field storage LucidStorage
---@field account string
---@field host? table lucidauth.nginx
---@field step? string what the flight asked for last
---@field argument? string|number
---@field sent? boolean a POST was sent, and what it brought may not be saved yet
---@field holds? boolean the storage's lock
---@field over? boolean

local steps, leave_off = {}, nil

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
  local record = json.decode(text)
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
  course.holds = true
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
  course.holds = false
  if course.storage.unlock then
    pcall(course.storage.unlock, course.account)
  end
  return "did"
end

function steps.post(course)
  course.sent = true
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
      leave_off(course)
    end
  end
  return "did"
end

local function is_landed(course)
  return course.over or course.step == "done"
end

local function land(course)
  course.over = true
  return course.flight:finish()
end

local function broken_off()
  return nil, "A refresh was broken off, since its client or its process ends. Nothing was lost; "
    .. "ask again.", "not_ready"
end

local function carry_out(course)
  course.step, course.argument = course.flight:next()
  while not is_landed(course) do
    local result, text = steps[course.step](course, course.argument)
    if course.over then
      return broken_off()
    end
    course.step, course.argument = course.flight:next(result, text)
  end
  return land(course)
end

local function new_course(flight, storage, account, host)
  return { flight = flight, storage = storage, account = account or "default", host = host }
end

--- A function that gets a token by way of this storage.
---@param storage LucidStorage
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
function M.over(storage)
  return function(handle, account, refresh)
    local flight, token, message, code = handle:flight(account, refresh)
    if not flight then
      return token, message, code
    end
    return carry_out(new_course(flight, storage, account))
  end
end

-- Another coroutine's flight is waited for.
local function begin(host, handle, account, refresh)
  local flight, token, message, code
  local function try()
    flight, token, message, code = handle:flight(account, refresh)
    return flight or token or code ~= "not_ready"
  end
  if not try() and host.can_yield() then
    host.wait_for(try)
  end
  return flight, token, message, code
end

local unsaved = "lucidauth: the answer to a refresh (account %s) could not be saved by a process "
  .. "that ends, where a storage's functions cannot wait: %s"

local brought_home = { load = true, save = true, unlock = true }

-- The POST was sent, so its answer is waited for, and saved by functions that
-- cannot wait any more: their coroutine does not go on.
local function bring_home(course)
  local result, text = "did", nil
  if course.step ~= "post" then
    result, text = steps[course.step](course, course.argument)
  end
  while not is_landed(course) do
    course.step, course.argument = course.flight:next(result, text)
    if not brought_home[course.step] then
      return
    end
    result, text = steps[course.step](course, course.argument)
    if course.step == "save" and result == "failed" then
      course.host.complain(unsaved:format(course.account, text))
    end
  end
end

--- Ends a flight whose coroutine does not go on. One that waits for nothing but
--- to try again is left as it stands: its mark is settled by whoever comes next.
function leave_off(course)
  if course.over then
    return
  end
  if course.sent and course.step ~= "wait" and course.step ~= "done" then
    pcall(bring_home, course)
  end
  if course.holds then
    steps.unlock(course)
  end
  pcall(land, course)
end

-- When the Lua state ends, nginx having been told to stop at once, coroutines
-- are gone and what is to be collected still has its turn.
local function guard(course)
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    course.host.outside_requests(leave_off, course)
  end
  course.guard = proxy
end

-- The courses of a client, until they are over.
local function new_fleet()
  local courses = setmetatable({}, { __mode = "k" })
  local fleet = {}

  function fleet.add(course)
    courses[course] = true
    guard(course)
  end

  --- Whether no flight is in the air but those that wait to try again.
  function fleet.rests()
    for course in pairs(courses) do
      if not course.over and course.step ~= "wait" then
        return false
      end
    end
    return true
  end

  --- Ends all of them; what was sent is waited for.
  function fleet.leave_off()
    for course in pairs(courses) do
      leave_off(course)
    end
  end

  return fleet
end

--- The same inside an event loop: the flight is carried out apart from its
--- caller, who may be cut off, and a token that still lives is handed out after
--- `patience` seconds, or at once to a caller that may not wait.
---@param storage LucidStorage
---@param host table lucidauth.nginx
---@param patience number seconds
---@return fun(core: userdata, account: string?, refresh: boolean): string?, string?, string?
---@return table fleet what is in the air
function M.apart(storage, host, patience)
  local fleet = new_fleet()
  return function(handle, account, refresh)
    local _, refusal, why = host.refusal()
    if refusal then
      return nil, refusal, why
    end
    local flight, token, message, code = begin(host, handle, account, refresh)
    if not flight then
      return token, message, code
    end
    local course = new_course(flight, storage, account, host)
    fleet.add(course)
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
  end, fleet
end

return M
