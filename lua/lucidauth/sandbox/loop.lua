--- One thread, many connections: coroutines over luasocket's select.
-- Copas would do, but the versions that are about differ:
-- the older one cannot sleep and must be loaded before socket.http.

local socket = require("socket")

local loop = {}

-- select() knows no descriptor beyond this one.
loop.DESCRIPTOR_LIMIT = 1024

local Set = {}
Set.__index = Set

local function new_set()
  return setmetatable({ list = {}, places = {}, waits = {} }, Set)
end

function Set:insert(object, wait)
  assert(not self.places[object], "somebody else waits for this socket")
  local place = #self.list + 1
  self.list[place] = object
  self.places[object] = place
  self.waits[object] = wait
end

function Set:remove(object)
  local place, last = self.places[object], #self.list
  local moved = self.list[last]
  self.list[place] = moved
  self.places[moved] = place
  self.list[last] = nil
  self.places[object] = nil
  self.waits[object] = nil
end

local Loop = {}
Loop.__index = Loop

--- A loop reports a coroutine that failed to `on_error`, and goes on.
---@param on_error fun(message: string)
function loop.new(on_error)
  return setmetatable({
    on_error = on_error,
    readers = new_set(),
    writers = new_set(),
    waits = {},
  }, Loop)
end

function Loop:resume(co, ...)
  local ok, message = coroutine.resume(co, ...)
  if not ok then
    self.on_error(debug.traceback(co, tostring(message)))
  end
end

--- Runs a function as a coroutine of this loop, until its first wait.
---@param body fun(...)
function Loop:spawn(body, ...)
  self:resume(coroutine.create(body), ...)
end

-- Called by a coroutine: sleeps until the socket is ready or time is up.
function Loop:wait(set, object, deadline)
  local co = coroutine.running()
  local wait = { at = deadline or math.huge, set = set, object = object }
  self.waits[co] = wait
  if set then
    set:insert(object, wait)
    wait.co = co
  end
  return coroutine.yield()
end

--- Waits until an object can be read.
---@param object table a socket, or anything with getfd() and dirty()
---@param deadline number|nil on the clock of socket.gettime
---@return boolean ready false when the deadline came first
function Loop:wait_readable(object, deadline)
  return self:wait(self.readers, object, deadline)
end

---@param object table
---@param deadline number|nil
---@return boolean ready
function Loop:wait_writable(object, deadline)
  return self:wait(self.writers, object, deadline)
end

---@param seconds number 0 lets all others have their turn
function Loop:sleep(seconds)
  self:wait(nil, nil, socket.gettime() + seconds)
end

--- Waits until the owner of this set releases its members.
---@param parked table<thread, boolean>
function Loop:park(parked)
  parked[coroutine.running()] = true
  self:wait()
end

---@param parked table<thread, boolean>
function Loop:release(parked)
  local waits = {}
  for co in pairs(parked) do
    waits[co], parked[co] = self.waits[co], nil
  end
  -- These may wait in it again.
  for co, wait in pairs(waits) do
    self:wake(co, wait)
  end
end

function Loop:wake(co, wait, ready)
  -- Another coroutine of the same round may have woken it already.
  if self.waits[co] ~= wait then
    return
  end
  self.waits[co] = nil
  if wait.set then
    wait.set:remove(wait.object)
  end
  self:resume(co, ready)
end

function Loop:patience(timeout)
  local nearest = math.huge
  for _, wait in pairs(self.waits) do
    nearest = math.min(nearest, wait.at)
  end
  local left = math.max(0, nearest - socket.gettime())
  left = math.min(left, timeout or math.huge)
  return left < math.huge and left or nil
end

local function waits_of(set, objects, into)
  for _, object in ipairs(objects) do
    into[#into + 1] = set.waits[object]
  end
end

function Loop:wake_overdue()
  local now, overdue = socket.gettime(), {}
  for co, wait in pairs(self.waits) do
    if wait.at <= now then
      overdue[co] = wait
    end
  end
  for co, wait in pairs(overdue) do
    self:wake(co, wait, false)
  end
end

--- Waits for the next thing to do, and does it.
---@param timeout number|nil seconds to wait at most
---@return boolean busy false when nothing is left that could ever happen
function Loop:step(timeout)
  if not next(self.waits) then
    return false
  end
  local patience = self:patience(timeout)
  local readable, writable =
    socket.select(self.readers.list, self.writers.list, patience)
  local ready = {}
  waits_of(self.readers, readable, ready)
  waits_of(self.writers, writable, ready)
  for _, wait in ipairs(ready) do
    self:wake(wait.co, wait, true)
  end
  self:wake_overdue()
  return true
end

--- Forgets every coroutine that waits.
function Loop:clear()
  self.readers, self.writers, self.waits = new_set(), new_set(), {}
end

return loop
