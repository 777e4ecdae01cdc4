-- How often the disk is asked while nothing happens.

local helper = require("spec.helper")
local stage = require("spec.crash.stage")

local MANY = 20000

-- Every way of asking for a token that is good.
local PROGRAM = [[
local lucid = require("lucidauth")
local client = lucid.new({ storage = { directory = arg[1] } })
local ways = {
  function() return lucid.token() end,
  function() return lucid.token(nil) end,
  function() return lucid.authorization() end,
  function() return client:token() end,
  function() return client:authorization() end,
  function() return client:token("anna") end,
  function() return client:authorization("anna") end,
}
for _ = 1, ]] .. MANY .. [[ do
  for _, way in ipairs(ways) do
    assert(way())
  end
end
]]

describe("a program that asks again and again", function()
  local self

  setup(function()
    self = stage.new("lua")
  end)

  teardown(function()
    self.sandbox:stop()
  end)

  it("asks the disk once a second at most, whatever it calls", function()
    local record = self:record(3000)
    self:reset(record)
    local text = helper.read_file(self.path)
    for _, name in ipairs({ "default", "anna" }) do
      local path = self.folder .. "/" .. name .. ".json"
      helper.write_file(path, text)
      assert(os.execute("chmod 600 " .. helper.quote(path)))
    end
    local program = self.folder .. ".lua"
    helper.write_file(program, PROGRAM)
    local outcome = self:run(("%s %s %s %s %s"):format(self:environment(), self:tracer("--list"),
      helper.quote(helper.interpreter), helper.quote(program), helper.quote(self.folder)))
    assert.are.equal(0, outcome.code, table.concat(outcome.lines, "\n"))
    local points = #helper.lines(helper.read_file(self.report_path))
    assert.is_true(points > 0 and points < MANY / 10, points)
  end)
end)
