--- What the host does to a refresh while it is under way, at each of its system
--- calls: descriptors run out, memory does, another user squats on names in the
--- folder, the folder's rights change, it is moved, or replaced by another one,
--- the lock file is removed, and a second process comes at just that time. When
--- all is right again the grant has to work, for this process and for the next
--- one, spent once, and nothing may be left behind.

local USAGE = [[
usage: spec/crash/meddle [--full] [--fault NAME] [--client lua|c]

Without --full: of the C client alone, a few points of each.
]]

local helper = require("spec.helper")
local socket = require("socket")
local fixture = require("spec.crash.fixture")

local quote = helper.quote

-- How often libcurl polls differs from run to run, so that a point may have to
-- be tried for.
local TRIES = 3

-- Opening this tells the tracer that the world is put right.
local OVER = "/all is well"

-- What the client does: it asks again when all is well, or it ends.
local ENDINGS = {
  again = { "token", "status", "open=" .. OVER, "token", "status", "close" },
  closed = { "token", "open=" .. OVER, "close" },
}

-- Users of this machine who are nobody else. Only root can be them.
local OWNER, SQUATTER = 61001, 61002

-- When it has to be short, each of so many allocations is tried, of the last
-- ones: most of the others load libraries.
local STRIDE, LAST = 23, 300

local function output_of(command)
  local pipe = io.popen(command)
  local text = pipe:read("*a")
  pipe:close()
  return text
end

local function is_root()
  return output_of("id -u"):match("%d+") == "0" and output_of("command -v setpriv") ~= ""
end

-- Faults -----------------------------------------------------------------------

local function as_user(user)
  return ("setpriv --reuid=%d --regid=%d --clear-groups"):format(user, user)
end

-- Whatever can be seen or guessed: what is there is tried to be moved away, and
-- what is not there is taken, by folders, which no unlink removes.
local SQUAT = [[
for n in * token.json token.json.lock token.json.tmp token.json.lock.tmp token.json.tmp-; do
  mv -f "$n" "$n.squatted"; rm -f "$n"; mkdir "$n" "$n.tmp" || ln -s /dev/null "$n.lock"
done 2>/dev/null
true]]

local function squat(self)
  return ("cd %s && exec %s sh -c %s"):format(quote(self.folder), as_user(SQUATTER), quote(SQUAT))
end

local function remove_squats(self)
  return ("find %s -mindepth 1 -depth -user %d -exec rm -rf {} +"):format(quote(self.folder),
    SQUATTER)
end

local function in_folder(text)
  return function(self)
    local folder = quote(self.folder)
    return (text:gsub("FOLDER", function()
      return folder
    end))
  end
end

-- The next process, for a moment while the first one stands still, and then both.
local OVERTAKE = [[
rm -f %s
{ %s; } >%s 2>&1 &
i=0
while [ $i -lt 10 ] && kill -0 $! 2>/dev/null; do sleep 0.02; i=$((i + 1)); done
true]]

local function overtake(self)
  return OVERTAKE:format(quote(self.path .. ".lock"), self:command({ "token", "close" }),
    quote(self.folder .. ".second"))
end

-- What `does` it at a point, and what `mends` it in the end. The client is
-- `user`, and the folder has this `mode`.
local FAULTS = {
  { name = "descriptors", exhausts = true },
  { name = "memory", starves = true },
  { name = "squatter", user = OWNER, mode = "1777", does = squat, mends = remove_squats },
  { name = "rights", user = OWNER, does = in_folder("chmod 0500 FOLDER"),
    mends = in_folder("chmod 0700 FOLDER") },
  { name = "owner", user = OWNER, does = in_folder("chown 0:0 FOLDER"),
    mends = in_folder("chown " .. OWNER .. " FOLDER") },
  { name = "moved", does = in_folder("mv FOLDER FOLDER.away"),
    mends = in_folder("if test -d FOLDER.away; then rm -rf FOLDER && mv FOLDER.away FOLDER; fi") },
  { name = "replaced", does = in_folder("mv FOLDER FOLDER.away && mkdir -m 700 FOLDER"),
    mends = in_folder("if test -d FOLDER.away && ! test -f FOLDER/token.json; then "
      .. "rm -rf FOLDER && mv FOLDER.away FOLDER; fi") },
  { name = "unlocked", does = in_folder("rm -f FOLDER/token.json.lock") },
  { name = "overtaken", does = overtake, second = true },
}

local function new_stage(client, fault)
  local self = fixture.new(client)
  if fault.user then
    local parent = self.folder:match("^(.*)/")
    assert(os.execute(("chmod 711 %s %s"):format(quote(parent), quote(parent:match("^(.*)/")))))
    self.client = as_user(fault.user) .. " " .. self.client
  end
  -- For so long it is tried again what fails before anything is sent.
  if fault.exhausts or fault.starves then
    self.client = "env TIMEOUT=3 " .. self.client
  end
  return self
end

local function set_up(self, fault)
  local folder = quote(self.folder)
  assert(os.execute(("rm -rf %s.away"):format(folder)))
  self:reset(self:record(-10))
  helper.write_file(self.folder .. ".second", "")
  if fault.user then
    assert(os.execute(("chown -R %d:%d %s && chmod %s %s"):format(fault.user, fault.user, folder,
      fault.mode or "700", folder)))
  end
end

local function tracer_options(self, fault, point)
  local at = quote(("%s:%s:%s:%s"):format(point.when, point.occurrence, point.call, point.object))
  local options = fault.exhausts and "--exhaust " .. at
    or ("--at %s --do %s"):format(at, quote(fault.does(self)))
  options = options .. " --lift " .. quote(OVER)
  return fault.mends and options .. " --at-lift " .. quote(fault.mends(self)) or options
end

-- Judging ------------------------------------------------------------------------

-- What a call may say that spends nothing.
local REFUSALS = { "^failure storage ", "^failure locked ",
  "^failure network Libcurl cannot be loaded, since this process ",
  "^failure network The token endpoint could not be reached" }

local function is_refusal(answer)
  for _, pattern in ipairs(REFUSALS) do
    if answer.line:find(pattern) then
      return true
    end
  end
  return false
end

local function answers_of(outcome)
  local answers = {}
  for _, line in ipairs(outcome.lines) do
    local token, code = line:match("^token (%S+)$"), line:match("^failure (%S+)")
    if token or code then
      table.insert(answers, { token = token, code = code, line = line })
    end
  end
  return answers
end

local function find_problem_in_first(self, fault, answer, ending)
  if not answer then
    return "nothing was said"
  elseif not answer.code then
    return nil
  elseif not is_refusal(answer) then
    return answer.line
  elseif ending == "closed" and not fault.second and self.sandbox:grant().rotations > 0 then
    return "no token although the request was answered: " .. answer.line
  end
end

local function find_problem_when_well(self, answer, ending)
  local waits = answer and answer.code == "network" and self.sandbox:grant().rotations == 0
  if ending == "closed" or waits then
    return nil
  elseif not answer or not answer.token then
    return "no token when all was well again: " .. (answer and answer.line or "silence")
  elseif not self:works(answer.token, self.sandbox:grant()) then
    return "a token that does not work when all was well again"
  end
end

local function find_problem_in_second(self, fault)
  local text = ""
  for _ = 1, fault.second and 1200 or 0 do
    text = helper.read_file(self.folder .. ".second") or ""
    if text:find("token [^\n]*\n") or text:find("failure [^\n]*\n") then
      break
    end
    socket.sleep(0.05)
  end
  local token = fixture.answer({ lines = helper.lines(text) })
  if fault.second and not (token and self:works(token, self.sandbox:grant())) then
    return "the second process: " .. text
  end
end

local function find_problem_in_next(self)
  self:let_time_pass()
  local outcome = self:follow({ "token" })
  local token = fixture.answer(outcome)
  local grant = self.sandbox:grant()
  if self.sandbox:counts().reuses > 0 then
    return "the refresh token was sent again after it was spent"
  elseif not token then
    return "the next process has no token: " .. (outcome.lines[1] or "silence")
  elseif not self:works(token, grant) then
    return "the next process's token does not work"
  elseif grant.rotations ~= 1 then
    return grant.rotations .. " rotations"
  end
  return self:find_fault_in_files(grant)
end

-- False: there is none.
local function find_problem(self, fault, outcome, ending)
  local answers = answers_of(outcome)
  if outcome.code ~= 0 then
    return "the process ended with " .. outcome.code
  end
  return find_problem_in_first(self, fault, answers[1], ending)
    or find_problem_when_well(self, answers[2], ending)
    or find_problem_in_second(self, fault)
    or find_problem_in_next(self)
    or false
end

-- Points -------------------------------------------------------------------------

local function find_point(points, call, object, last)
  local found
  for _, point in ipairs(points) do
    local alike = point.call:find(call) and point.object:find(object, 1, true)
    if alike and (last or not found) then
      found = point
    end
  end
  assert(found, call)
  return found
end

-- Before whatever a refresh gets hold of, and what it does with it.
local function choose(points)
  return {
    find_point(points, "^fcntl", "lock token.json.lock"),
    find_point(points, "^open", "token.json.tmp"),
    find_point(points, "^fsync", "token.json.tmp"),
    find_point(points, "^rename", "token.json"),
    find_point(points, "^connect", "socket"),
    find_point(points, "^recv", "socket"),
    find_point(points, "^pwrite", "token.json.tmp", true),
    find_point(points, "^rename", "token.json", true),
  }
end

-- Those of the refresh itself, which the last unlock ends.
local function list_points(self, full)
  local points, all = {}, self:list_points()
  local last = fixture.last_unlock(all)
  for i, point in ipairs(all) do
    if point.when == "before" and i <= last then
      table.insert(points, point)
    end
  end
  return full and points or choose(points)
end

-- A whole fault ------------------------------------------------------------------

local function new_row()
  return { points = 0, unreached = 0, wrong = 0 }
end

local function count(row, what, problem, outcome)
  row.points = row.points + 1
  if problem then
    row.wrong = row.wrong + 1
    print(("WRONG: %s: %s"):format(what, problem))
    print("  " .. table.concat(outcome.lines, "\n  "))
  end
end

-- nil: the point was not reached.
local function strike(self, fault, point, ending)
  for _ = 1, TRIES do
    set_up(self, fault)
    local outcome, report = self:trace(tracer_options(self, fault, point), ENDINGS[ending])
    if report.points[1] then
      return find_problem(self, fault, outcome, ending), outcome
    end
  end
end

local function at_each_point(self, fault, full)
  local row = new_row()
  set_up(self, fault)
  for _, point in ipairs(list_points(self, full)) do
    local endings = full and { "again", "closed" } or { "again" }
    for _, ending in ipairs(endings) do
      local problem, outcome = strike(self, fault, point, ending)
      if problem == nil then
        row.unreached = row.unreached + 1
      else
        count(row, ("%s before %s %s %s, %s"):format(fault.name, point.call, point.occurrence,
          point.object, ending), problem, outcome)
      end
    end
  end
  return row
end

local function starve(self, fault, step)
  set_up(self, fault)
  return self:run(self:command({ step, "token", "fed", "status", "token", "status", "close" },
    "env LD_PRELOAD=" .. quote(fixture.built .. "crash_starve.so")))
end

local function count_allocations(self, fault)
  for _, line in ipairs(starve(self, fault, "starve=0").lines) do
    local number = line:match("^starved 0 of (%d+)$")
    if number then
      return tonumber(number)
    end
  end
  error("allocations cannot be counted")
end

local function at_each_allocation(self, fault, full)
  local row, last = new_row(), count_allocations(self, fault)
  for number = full and 1 or math.max(1, last - LAST), last, full and 1 or STRIDE do
    for _, way in ipairs({ "starve=", "famine=" }) do
      local outcome = starve(self, fault, way .. number)
      count(row, ("%s%d of %d"):format(way, number, last),
        find_problem(self, fault, outcome, "again"), outcome)
    end
  end
  return row
end

local LINE = "%-8s  %-12s  %5d tried  %5d not reached  %5d wrong  %5.0f s"

local function run_fault(client, fault, full)
  local start = socket.gettime()
  local self = new_stage(client, fault)
  local row = (fault.starves and at_each_allocation or at_each_point)(self, fault, full)
  self.sandbox:stop()
  print(LINE:format(fixture.names[client], fault.name, row.points, row.unreached, row.wrong,
    socket.gettime() - start))
  io.stdout:flush()
  return row.wrong == 0 and row.unreached <= row.points / 10 and row.points > 0
end

local function is_wanted(fault, client, options)
  return (not options.only or options.only == fault.name)
    and (options.full or client == "c")
    and (client == "c" or not fault.starves)
end

local function run_client(client, options)
  local good, root = true, is_root()
  for _, fault in ipairs(FAULTS) do
    local wanted = is_wanted(fault, client, options)
    if wanted and fault.user and not root then
      print(fault.name .. " is left out: only root can be two users, by setpriv")
    elseif wanted then
      good = run_fault(client, fault, options.full) and good
    end
  end
  return good
end

fixture.main(arg, USAGE, "--fault", { FAULTS }, run_client)
