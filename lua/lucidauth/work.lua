--- Work that may be cut off at any moment, by an error or since nobody resumes
--- its coroutine, and that cannot tell of it: others look whether it goes on.

local core = require "lucidauth.core"

local M = {}

-- A coroutine that is referenced nowhere else is gone, and its work with it.
local weak = { __mode = "v" }

--- Does some work, for four results at most.
---@param worker table by which others know it
---@param body fun(...): ...
---@param ... any
---@return ...
function M.start(worker, body, ...)
  -- no tail call: it has to be found on the stack
  local function busy(...)
    local one, two, three, four = body(...)
    return one, two, three, four
  end
  worker.thread = setmetatable({ core.thread() }, weak)
  worker.busy = busy
  return busy(...)
end

--- Whether it goes on, or is going to be resumed as far as one can tell.
---@param worker table
---@return boolean
function M.is_under_way(worker)
  return worker.busy ~= nil and core.is_running(worker.thread[1], worker.busy)
end

return M
