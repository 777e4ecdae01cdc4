-- How often the system is asked while nothing happens: what a program calls
-- between two marks in its trace, held against the seconds that have passed
-- between them by its own clock.

local helper = require("spec.helper")
local fixture = require("spec.crash.fixture")

local MANY = 20000

-- Every way of asking for a token that is good. A mark is a file that is looked
-- for; its name says what has been done, and how long it took.
local PROGRAM = [[
local folder, many, background = arg[1], tonumber(arg[2]), os.getenv("BACKGROUND") ~= nil
local clock = require("socket").gettime
local lucid = require("lucidauth")
if background then
  lucid.configure({ background = true })
end
local client = lucid.new({ storage = { directory = folder }, background = background })
local ways = {
  ["lucid.token()"] = function() return lucid.token() end,
  ["lucid.token(nil)"] = function() return lucid.token(nil) end,
  ["lucid.authorization()"] = function() return lucid.authorization() end,
  ["lucid.authorization(nil)"] = function() return lucid.authorization(nil) end,
  ["client:token()"] = function() return client:token() end,
  ["client:token(nil)"] = function() return client:token(nil) end,
  ["client:authorization()"] = function() return client:authorization() end,
  ["client:token(name)"] = function() return client:token("anna") end,
  ["client:authorization(name)"] = function() return client:authorization("anna") end,
}
local function ask(list)
  for _ = 1, many do
    for i = 1, #list do
      assert(list[i]())
    end
  end
end
local function measure(name, list)
  for i = 1, #list do
    assert(list[i]())
  end
  io.open(folder .. "/begin")
  local began = clock()
  ask(list)
  io.open(("%s/end %.3f %s"):format(folder, clock() - began, name))
end
local all = {}
for name, way in pairs(ways) do
  measure(name, { way })
  all[#all + 1] = way
end
measure("all in turn", all)
]]

local WAYS = 10 -- the nine, and all in turn

-- The accounts that a way asks for; all in turn ask for those of both clients.
local function accounts_of(name)
  return name == "all in turn" and 3 or 1
end

-- What was called between the marks, and in front of the first: looks at the
-- folder's files, and all calls.
local function measured(report_path)
  local list, before, looks, calls = {}, nil, 0, 0
  for _, line in ipairs(helper.lines(helper.read_file(report_path))) do
    local object, what = line:match("^point\tbefore\t%d+\t%S+\t(%S*)(.*)$")
    if object == "begin" then
      before = before or looks
      looks, calls = 0, 0
    elseif object == "end" then
      local seconds, name = what:match("^ (%S+) (.*)$")
      list[#list + 1] = { name = name, seconds = tonumber(seconds), looks = looks, calls = calls }
    elseif object then
      calls = calls + 1
      looks = looks + (object:find("%.json") and 1 or 0)
    end
  end
  return list, before
end

-- Nothing but the look at the disk may be needed again; an interpreter has its
-- own to do, and a thread that waits for its time.
local function judge(one, accounts, seconds)
  local found = ("%s: %d looks, %d calls in %g seconds"):format(one.name, one.looks, one.calls,
    seconds)
  assert.is_true(one.looks <= accounts * (seconds + 1), found)
  assert.is_true(one.calls < 20 * (seconds + 1), found)
end

describe("a program that asks again and again", function()
  local self

  setup(function()
    self = fixture.new("lua")
  end)

  teardown(function()
    self.sandbox:stop()
  end)

  local function prepare()
    self:reset(self:record(3000))
    local text = helper.read_file(self.path)
    for _, name in ipairs({ "default", "anna" }) do
      local path = self.folder .. "/" .. name .. ".json"
      helper.write_file(path, text)
      assert(os.execute("chmod 600 " .. helper.quote(path)))
    end
  end

  local function run(background, command)
    local environment = self:environment() .. (background and " BACKGROUND=yes" or "")
    local outcome = self:run(("%s %s %s"):format(environment, self:tracer("--list --all"), command))
    assert.are.equal(0, outcome.code, table.concat(outcome.lines, "\n"))
    local list, before = measured(self.report_path)
    assert.is_true(before > 0) -- else nothing was seen
    return list, outcome
  end

  it("opens each of its files once for a token that is good", function()
    prepare()
    local outcome = self:run(("%s %s %s -e %s"):format(self:environment(),
      self:tracer("--list"), helper.quote(helper.interpreter),
      helper.quote('assert(require("lucidauth").token())')))
    assert.are.equal(0, outcome.code, table.concat(outcome.lines, "\n"))
    local opened = {}
    local points = helper.read_file(self.report_path)
    for call, object in points:gmatch("point\tbefore\t%d+\t(%S+)\t(%S+)") do
      if call:find("open", 1, true) then
        opened[#opened + 1] = object
      end
    end
    assert.are.same({ "token.json", "token.json.lock" }, opened)
  end)

  for _, background in ipairs({ false, true }) do
    local how = background and ", with a thread" or ""

    it("asks the disk once a second at most, whatever it calls" .. how, function()
      prepare()
      local program = self.folder .. ".lua"
      helper.write_file(program, PROGRAM)
      local list = run(background, ("%s %s %s %d"):format(helper.quote(helper.interpreter),
        helper.quote(program), helper.quote(self.folder), MANY))
      assert.are.equal(WAYS, #list)
      for _, one in ipairs(list) do
        judge(one, accounts_of(one.name), one.seconds)
      end
    end)

    it("asks the disk once a second at most in C" .. how, function()
      prepare()
      local begin, ending = self.folder .. "/begin", self.folder .. "/end 0 lucidauth_token()"
      local list, outcome = run(background, ("%s token open=%s ask=%d open=%s"):format(
        fixture.clients.c, helper.quote(begin), MANY, helper.quote(ending)))
      judge(list[1], 1, tonumber(table.concat(outcome.lines, "\n"):match("asked (%S+)")))
    end)
  end
end)
