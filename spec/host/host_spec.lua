-- Programs that export functions under the names of a library's that we use.

local helper = require("spec.helper")
local tokens = require("spec.tokens")

local scene = require("spec.scene").new(setup, teardown, before_each, after_each)
local sandbox = scene.sandbox

local folder = helper.interpreter:gsub("[^/]*$", "spec/host/")
local built = helper.read_file(folder .. "lua") ~= nil
local it = built and it or pending

describe("a program with a cJSON of its own", function()
  -- An empty storage, a stored record, and one that was left in the middle.
  local function assert_works(command)
    sandbox:faults({ kind = "close", times = 1 })
    for _ = 1, 2 do
      local out, err = helper.run(command, scene:env())
      assert.are.equal("", err)
      assert.is_true(tokens.works(sandbox, out:match("token (%S+)\n$")), out)
    end
    assert.are.equal(0, sandbox:counts().reuses)
    assert.is_truthy(helper.read_file(scene.path):find('"refresh_token"', 1, true))
  end

  it("gets tokens from Lua", function()
    local script = scene.folder .. "/script.lua"
    helper.write_file(script, [[
      local lucid = require("lucidauth")
      assert(lucid.token())
      print("token " .. assert(lucid.refresh()))
    ]])
    assert_works({ folder .. "lua", script })
  end)

  it("gets tokens from C", function()
    assert_works({ folder .. "c", "token", "refresh" })
  end)
end)
