--- The crash sweep: a refresh is killed just before and just behind each of its
--- system calls, then a fresh process asks for a token. It has to get one that
--- works, unless the server had rotated and its answer had not reached the
--- disk: then it has to be told so, and a new login has to work.

local USAGE = [[
usage: spec/crash/sweep [--full] [--situation NAME] [--client lua|c]

Without --full: the situation "expired", only the points behind a system call, and
none after the last unlock; before the request is sent those that concern the
token file's folder, of the Lua client only these, and only afterwards.
]]

local socket = require("socket")
local fixture = require("spec.crash.fixture")

-- How often libcurl polls differs from run to run, so that a point may have to
-- be tried for.
local TRIES = 5

-- What the clients wait for takes a second or two, or a minute if it never
-- comes: no lock or timeout may hold the next process up. So many times what
-- the killed one has just taken on the same machine, and seconds more for what
-- is waited for on purpose.
local SLOWER, PAUSES = 20, 10

local function host_name()
  local pipe = io.popen("uname -n")
  local name = pipe:read("*l")
  pipe:close()
  return name
end

local HOST = host_name()

-- Situations ----------------------------------------------------------------

local function is_sending(point)
  return point.call:find("^send") and point.object == "socket"
end

local function first_sent(points)
  for i, point in ipairs(points) do
    if is_sending(point) then
      return i
    end
  end
  return math.huge
end

-- The first point of this call; with `object` of the first one on that file
-- from the request on.
local function find_call(points, call, object)
  for i = object and first_sent(points) or 1, #points do
    local point = points[i]
    if point.call:find("^" .. call) and (not object or point.object == object) then
      return point
    end
  end
  error("the situation cannot be set: there is no " .. call)
end

local function kill_at(self, point)
  local outcome, report = self:trace(("--kill '%s:%s:%s:%s'"):format(point.when, point.occurrence,
    point.call, point.object), self.steps or { "token" })
  self.killed_took = outcome.seconds
  self:let_time_pass()
  return #report.points == 1, report.pid
end

-- A first process dies before this call, and leaves what it leaves.
local function left_before(call, object)
  local point
  return function(self)
    self:reset(self:record(-10))
    if not point then
      point = find_call(self:list_points(), call, object)
      self:reset(self:record(-10))
    end
    local struck, pid = kill_at(self, point)
    assert(struck, "the situation cannot be set")
    return pid
  end
end

-- `set` returns the process that has spent the refresh token, if one has.
local SITUATIONS = {
  {
    name = "expired",
    title = "the stored token has expired",
    set = function(self)
      self:reset(self:record(-10))
    end,
  },
  {
    name = "due",
    title = "the stored token is due, and lives until it is refreshed",
    set = function(self)
      self:reset(self:record(100))
    end,
  },
  {
    name = "first",
    title = "there is no token file yet",
    set = function(self)
      self:reset()
    end,
  },
  {
    name = "unsent",
    title = "an earlier process died before it sent the request",
    set = left_before("connect"),
  },
  {
    name = "unsaved",
    title = "an earlier process died with the answer in its memory",
    set = left_before("p?write", "token.json.tmp"),
  },
  {
    name = "unnamed",
    title = "an earlier process died before it put the new file in its place",
    set = left_before("rename", "token.json"),
  },
}

-- What another grant's login gave takes the place of what is stored.
table.insert(SITUATIONS, {
  name = "login",
  title = "the process stores what a login gave",
  least = 10,
  set = function(self)
    self:reset(self:record(-10))
    self.steps = { "store=" .. self.sandbox:open_grant({ account = "again" }).refresh_token }
  end,
})

-- One point -----------------------------------------------------------------

local function check_found(self, outcome, grant)
  local token, code = fixture.answer(outcome)
  if not token then
    return "no token, but " .. tostring(code or "silence")
  elseif not self:works(token, grant) then
    return "a token that does not work"
  elseif grant.rotations ~= 1 then
    return grant.rotations .. " rotations"
  elseif not fixture.says(outcome, "status ready saved shared settled") then
    return outcome.lines[#outcome.lines]
  end
  return self:find_fault_in_files(grant)
end

local function check_new_login(self)
  local login = self.sandbox:open_grant({ account = "again" })
  self.refresh_token = login.refresh_token
  local token = fixture.answer(self:follow({ "token" }))
  local grant = self.sandbox:grant("again")
  if not token or not self:works(token, grant) then
    return "a new login does not help"
  end
  return self:find_fault_in_files(grant)
end

local function check_lost(self, outcome, spender)
  local _, code, message = fixture.answer(outcome)
  if code ~= "lost_rotation" then
    return (code or "silence") .. " instead of lost_rotation"
  elseif not message:find(("in process %d on %s "):format(spender, HOST), 1, true) then
    return "lost_rotation does not name the process that died"
  elseif not fixture.says(outcome, "status failing saved shared settled") then
    return outcome.lines[#outcome.lines]
  end
  return check_new_login(self)
end

local function check_always(self, outcome)
  if outcome.code ~= 0 then
    return "the next process ended with " .. outcome.code
  elseif outcome.seconds > SLOWER * self.killed_took + PAUSES then
    return ("the next process took %.1f s"):format(outcome.seconds)
  elseif self.sandbox:counts().reuses > 0 then
    return "the refresh token was sent again after it was spent"
  end
end

-- What became of the grant when the process had died, and what the next
-- process makes of it.
local function judge(self, spender)
  local left = self.sandbox:grant()
  local saved = self:holds(left.refresh_token)
  local spent = left.rotations > 0
  local outcome = self:follow({ "token", "status" })
  local problem, result
  if spent and not saved then
    result = "lost_rotation"
    problem = check_lost(self, outcome, spender)
  else
    result = spent and "found" or "refreshed"
    problem = check_found(self, outcome, self.sandbox:grant())
  end
  return {
    server = spent and "rotated" or "unspent",
    disk = spent and saved and "new" or "old",
    result = result,
    problem = check_always(self, outcome) or problem,
    seconds = outcome.seconds,
  }
end

-- One that stores dies: the former grant goes on, or the new one, and nothing else.
local function judge_login(self)
  local outcome = self:follow({ "token", "status" })
  local former, new = self.sandbox:grant(), self.sandbox:grant("again")
  local is_stored = new.rotations > 0
  local problem = former.rotations + new.rotations ~= 1 and "both grants were used, or none"
    or check_found(self, outcome, is_stored and new or former)
  return {
    server = "unspent",
    disk = is_stored and "new" or "old",
    result = is_stored and "found" or "refreshed",
    problem = check_always(self, outcome) or problem,
    seconds = outcome.seconds,
  }
end

-- nil: the point was not reached.
local function strike(self, situation, point)
  for _ = 1, TRIES do
    local spender = situation.set(self)
    local before = self.sandbox:counts().rotations
    local struck, pid = kill_at(self, point)
    if struck then
      local spent = self.sandbox:counts().rotations > before
      return self.steps and judge_login(self) or judge(self, spent and pid or spender)
    end
  end
end

-- A whole situation -------------------------------------------------------------

local LINE = "%-6s  %-16s %2s  %-24s  %-7s  %-6s  %-13s %5s"

local function print_point(point, verdict)
  print(LINE:format(point.when, point.call, point.occurrence, point.object, verdict.server,
    verdict.disk, verdict.result, ("%.0f"):format(verdict.seconds * 1000)))
  if verdict.problem then
    print("        WRONG: " .. verdict.problem)
  end
  io.stdout:flush()
end

local UNREACHED =
  { server = "", disk = "", result = "unreached", seconds = 0 }

local function new_tally()
  return { points = 0, wrong = 0, slowest = 0, refreshed = 0, found = 0, lost_rotation = 0,
    unreached = 0 }
end

local function count(tally, verdict)
  tally.points = tally.points + (verdict ~= UNREACHED and 1 or 0)
  tally[verdict.result] = tally[verdict.result] + 1
  tally.slowest = math.max(tally.slowest, verdict.seconds)
  tally.wrong = tally.wrong + (verdict.problem and 1 or 0)
end

-- A lock that is only taken to see who holds it opens no window.
local function first_of_window(points)
  local first = 1
  for i, point in ipairs(points) do
    first = point.object:find("^lock ") and point.when == "before" and i or first
  end
  return first
end

local function is_about_tokens(point)
  return point.object:find("token.json", 1, true) or point.object == "."
end

-- Those that a short sweep does not pass over. Between two system calls nothing
-- changes that a killed process would leave behind.
local function is_chosen(points, i, client, stores)
  if i > fixture.last_unlock(points) or points[i].when == "before" then
    return false
  elseif stores then
    return is_about_tokens(points[i])
  end
  local sent, stored = i >= first_sent(points), is_about_tokens(points[i])
  if client == "c" then
    return sent or stored
  end
  return sent and stored
end

local function sweep(self, situation, client, full)
  situation.set(self)
  local points, tally = self:list_points(self.steps), new_tally()
  local first = first_of_window(points)
  for i, point in ipairs(points) do
    local inside = i >= first or is_about_tokens(point)
    if inside and (full or is_chosen(points, i, client, self.steps)) then
      local verdict = strike(self, situation, point) or UNREACHED
      print_point(point, verdict)
      count(tally, verdict)
    end
  end
  return tally
end

local SUMMARY = "\n%s, %s: %d points in %.0f s: %d refreshed, %d found the new tokens, "
  .. "%d told lost_rotation; %d not reached; %d wrong; the slowest next process took %.0f ms"

local function run_situation(situation, client, full)
  local start = socket.gettime()
  local self = fixture.new(client)
  print(("\n%s: %s\n"):format(fixture.names[client], situation.title))
  print(LINE:format("killed", "call", "", "on", "server", "disk", "next process", "ms"))
  local tally = sweep(self, situation, client, full)
  self.sandbox:stop()
  print(SUMMARY:format(fixture.names[client], situation.name, tally.points,
    socket.gettime() - start, tally.refreshed, tally.found, tally.lost_rotation,
    tally.unreached, tally.wrong, tally.slowest * 1000))
  local least = situation.least or full and 100 or client == "c" and 40 or 10
  return tally.wrong == 0 and tally.points > least and tally.unreached < least / 10
end

local function run_client(client, options)
  local good = true
  for _, situation in ipairs(SITUATIONS) do
    if situation.name == (options.only or not options.full and "expired" or situation.name) then
      good = run_situation(situation, client, options.full) and good
    end
  end
  return good
end

fixture.main(arg, USAGE, "--situation", { SITUATIONS }, run_client)
