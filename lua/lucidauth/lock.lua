--- The lock of a storage made of Lua functions: the run that asked for it, the
--- lock holder, and the lock's release when its holder is cut off in between.

local core = require "lucidauth.core"
local storage = require "lucidauth.storage"
local work = require "lucidauth.work"

local M = {}

local is_at_work = work.is_under_way

--- The state of one call of `lock`, and of the call of `unlock` after it.
---@class lucidauth.Hold
---@field run lucidauth.Run the run that asked
---@field process integer in which
---@field late boolean it was asked for by a run that was over already
---@field answer? table the results of `lock`; nil: it has not returned
---@field since? number `unlock` was called, by core.ran
---@field gave? boolean and has returned
---@field former? lucidauth.Hold of the same account, not settled either

local function is_held(hold)
  return hold.answer and storage.lock_result(hold.answer) == "ok" and hold.gave == nil
end

-- Its record may still come, late, over another one.
local function is_saving(run)
  return run.step == "save" and is_at_work(run)
end

local function is_in_use(hold)
  local run = hold.run
  if not is_at_work(run) then
    return false
  elseif hold.since then
    return core.ran() - hold.since < run.flights.patience
  end
  return hold.late or run.flight:is_flying()
end

local function doubt(run)
  local doubts = run.flights.doubts
  doubts[run.account] = doubts[run.account] or {}
end

-- An unlock that was cut off is called once more: it may not have come to it.
local function give_back(hold)
  hold.since = core.ran()
  hold.gave = pcall(hold.run.storage.unlock, hold.run.account)
  if not hold.gave then
    doubt(hold.run)
  end
end

-- How long a lock that is somebody else's is believed to be that, when it may be
-- one that this process has taken and does not know of.
local function credit(run)
  return math.min(1, run.flights.patience / 8)
end

local function settle(flights, hold)
  if not hold then
    return nil
  end
  hold.former = settle(flights, hold.former)
  local run = hold.run
  if hold.process ~= core.process() or hold.answer and not is_held(hold) then
    return hold.former
  elseif is_in_use(hold) or is_saving(run) or not hold.answer and is_at_work(run) then
    return hold
  elseif hold.answer then
    give_back(hold)
  else
    doubt(run)
  end
  return hold.former
end

local function ask(run)
  local flights, account = run.flights, run.account
  local hold = {
    run = run,
    process = core.process(),
    late = not run.flight:is_flying(),
    former = flights.holds[account],
  }
  flights.holds[account] = hold
  hold.answer = core.pack(pcall(run.storage.lock, account))
  return storage.lock_result(hold.answer)
end

-- A refresh that another has begun shows in the record.
local function is_another_s(run)
  return run.seen ~= nil and storage.is_marked(run.seen)
end

local function ask_in_doubt(run, doubted)
  local result, message = ask(run)
  doubted.since = doubted.since or core.ran()
  if result == "busy" and core.ran() - doubted.since >= credit(run)
    and not is_another_s(run) then
    pcall(run.storage.unlock, run.account)
    result, message = ask(run)
  end
  if result == "ok" then
    run.flights.doubts[run.account] = nil
  end
  return result, message
end

local function own_hold(flights, account)
  local hold = flights.holds[account]
  while hold and not is_held(hold) do
    hold = hold.former
  end
  return hold
end

--- One try to take the lock. One that this process has is not asked for again:
--- it would seem to be another's.
---@param run lucidauth.Run
---@return "ok"|"busy"|"failed" result
---@return string? message
function M.take(run)
  local flights, account = run.flights, run.account
  if not run.storage.lock then
    return "ok"
  end
  flights.holds[account] = settle(flights, flights.holds[account])
  local held = own_hold(flights, account)
  if held and is_saving(held.run) and not is_in_use(held) then
    held.run = run
    return "ok"
  elseif held then
    return "busy"
  end
  local doubted = flights.doubts[account]
  if doubted then
    return ask_in_doubt(run, doubted)
  end
  return ask(run)
end

--- Gives back this run's lock, or one that an ended run has left. A lock stays
--- while a record may still be saved under it.
---@param run lucidauth.Run
function M.give(run)
  local hold = run.flights.holds[run.account]
  while hold do
    if hold.run == run and is_held(hold) then
      give_back(hold)
    end
    hold = hold.former
  end
  run.flights.holds[run.account] = settle(run.flights, run.flights.holds[run.account])
end

--- Gives back all locks that this process has of an account.
---@param flights lucidauth.Flights
---@param account string
function M.release(flights, account)
  local hold = flights.holds[account]
  while hold do
    if hold.process == core.process() and is_held(hold) then
      give_back(hold)
    end
    hold = hold.former
  end
  flights.holds[account] = settle(flights, flights.holds[account])
end

return M
