-- Programs that export functions under the names of libraries that we use, and under our own, or
-- that bring another allocator.

local helper = require("spec.helper")
local tokens = require("spec.tokens")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

local folder = helper.interpreter:match("^(.*/)") .. "spec/host/"
local built = helper.read_file(folder .. "lua") ~= nil
local it = built and it or pending
local jemalloc = helper.run("ls /usr/lib/*/libjemalloc.so.2 2>/dev/null"):match("[^\n]+")

local function write_script()
  local path = fixture.folder .. "/script.lua"
  helper.write_file(path, [[
    local lucid = require("lucidauth")
    assert(lucid.token())
    print("token " .. assert(lucid.refresh()))
  ]])
  return path
end

describe("a program with a cJSON, a libcurl and a libsodium of its own", function()
  -- An empty storage, a stored record, and one that was left in the middle.
  local function assert_works(command, env)
    sandbox:faults({ kind = "close", times = 1 })
    for _ = 1, 2 do
      local out, err = helper.run(command, helper.merge(fixture:env(), env))
      assert.are.equal("", err)
      assert.is_true(tokens.works(sandbox, out:match("(%S+)\n$")), out)
    end
    assert.are.equal(0, sandbox:counts().reuses)
    assert.is_truthy(helper.read_file(fixture.path):find('"refresh_token"', 1, true))
  end

  it("gets tokens from Lua", function()
    assert_works({ folder .. "lua", write_script() })
  end)

  it("gets tokens from C", function()
    assert_works({ folder .. "c", "token", "refresh" })
  end)

  it("gets tokens from both, each by its own functions", function()
    assert_works({ folder .. "both", write_script() })
  end)

  local _ = (jemalloc and it or pending)("gets tokens with another allocator", function()
    assert_works({ folder .. "both", write_script() }, { LD_PRELOAD = jemalloc })
  end)
end)
