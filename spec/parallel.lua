--- Tests side by side: a spec that spends its time waiting, as for the pauses of
--- the refresh flow, is run by several processes, each of which carries out its
--- share of the tests. They are written as ever; what they share (a sandbox, a
--- folder) each process has for itself.

local socket = require("socket")

local helper = require("spec.helper")

local parallel = {}

-- A process that hangs has found a fault; one that ends is noticed at once.
local PATIENCE = 500

-- In a process that another one started for a share of its tests: which, and
-- where to leave what came of them.
local SHARE, FOLDER = tonumber(os.getenv("SPEC_SHARE")), os.getenv("SPEC_SHARES")

local function result_path(folder, number)
  return folder .. "/result-" .. number
end

-- The test's name, "passed", "failed" or "pending", and why. It appears at one
-- stroke.
local function leave_result(number, name, outcome, why)
  local path = result_path(FOLDER, number)
  helper.write_file(path .. ".new", ("%s\n%s\n%s"):format(name, outcome, why))
  assert(os.rename(path .. ".new", path))
end

local function carry_out(number, name, body)
  return function()
    local outcome = "passed"
    local _, why = xpcall(body, function(problem)
      local kind = getmetatable(problem)
      if type(kind) == "table" and kind.__type == "pending" then
        outcome = "pending"
        return problem.message
      end
      outcome = "failed"
      return debug.traceback(tostring(problem), 2)
    end)
    leave_result(number, name, outcome, why or "")
  end
end

local function start_share(share, folder, file)
  local words = { helper.interpreter, assert(arg[0], "run this with busted"), "--output=TAP", file }
  for i, word in ipairs(words) do
    words[i] = helper.quote(word)
  end
  local ended = folder .. "/ended-" .. share
  -- Without LUA it is looked for leaks as the first process is.
  local process = helper.start(("%s; code=$?; : >%s; exit $code"):format(
    table.concat(words, " "), helper.quote(ended)),
    { SPEC_SHARE = tostring(share), SPEC_SHARES = folder, LUA = false })
  return { process = process, ended = ended }
end

-- nil: its process ended without it, or hangs.
local function wait_for_result(number, one, folder)
  local deadline = socket.gettime() + PATIENCE
  repeat
    -- asked first: the result may be the last thing that it has left
    local ended = helper.read_file(one.ended)
    local text = helper.read_file(result_path(folder, number))
    if text or ended then
      return text
    end
    socket.sleep(0.002)
  until socket.gettime() > deadline
end

local function fetch(number, name, one, folder, skip)
  return function()
    local text = wait_for_result(number, one, folder)
    if not text then
      error("the process that was to run this left no result: "
        .. helper.read_file(one.process.folder .. "/out")
        .. helper.read_file(one.process.folder .. "/err"), 0)
    end
    assert(text:sub(1, #name + 1) == name .. "\n", "the tests come in another order each time")
    local outcome, why = text:match("^(%l+)\n(.*)$", #name + 2)
    if outcome == "pending" then
      skip(why)
    elseif outcome ~= "passed" then
      error(why, 0)
    end
  end
end

local function stop(list)
  return function()
    for share, one in pairs(list) do
      local out, err, code = one.process:wait()
      assert(code == 0, ("one %d ended with %s: %s%s"):format(share, code, out, err))
    end
  end
end

--- Deals tests out to so many processes; they run from now on. The tests of a
--- spec must come in the same order each time.
---@param count integer odd, lest tests that come in pairs go to the same ones
---@param it function busted's
---@param teardown function busted's, of the whole file
---@param skip fun(why: string)|nil calls busted's pending, if any test does
---@return function it to be used in its stead, for every test of the file
function parallel.deal(count, it, teardown, skip)
  local number = 0
  if SHARE then
    return function(name, body)
      number = number + 1
      if number % count == SHARE then
        it(name, carry_out(number, name, body))
      end
    end
  end
  local folder, list = helper.tmpdir(), {}
  local file = debug.getinfo(2, "S").source:gsub("^@", "")
  for share = 1, count - 1 do
    list[share] = start_share(share, folder, file)
  end
  teardown(stop(list))
  return function(name, body)
    number = number + 1
    local one = list[number % count]
    it(name, one and fetch(number, name, one, folder, skip) or body)
  end
end

return parallel
