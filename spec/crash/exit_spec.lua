-- A process that ends by exit() or by returning from main while another of its
-- threads refreshes: the answer is waited for and saved.

local fixture = require("spec.crash.fixture")

-- What a thread still holds when the exit cuts it off goes with the process.
local WITHOUT_LEAKS = 'env ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"'

describe("a process that ends in the middle of a refresh", function()
  local self

  setup(function()
    self = fixture.new("c")
  end)

  teardown(function()
    self.sandbox:stop()
  end)

  local function end_in_flight(steps, before)
    self:reset(self:record(-10))
    self.sandbox:settings({ latency = 0.3 })
    local outcome = self:run(self:command(steps, WITHOUT_LEAKS .. " " .. (before or "")))
    assert.are.equal(0, outcome.code, table.concat(outcome.lines, "\n"))
    self.sandbox:settings({ latency = 0 })
    local grant = self.sandbox:grant()
    assert.are.equal(1, grant.rotations)
    assert.is_true(self:holds(grant.refresh_token))
    assert.are.equal(grant.access_token, fixture.answer(self:follow({ "token" })))
    assert.is_nil(self:find_fault_in_files(grant))
  end

  for name, steps in pairs({
    ["by exit()"] = { "begin", "exit" },
    ["by returning from main"] = { "begin" },
  }) do
    it(name .. " waits for the thread that refreshes", function()
      end_in_flight(steps)
    end)

    it(name .. " waits for the background", function()
      end_in_flight(steps, "BACKGROUND=1")
    end)
  end
end)
