-- What the README shows in Lua, run as it stands there but for the server's
-- name.

local helper = require("spec.helper")
local lucid = require("lucidauth")

local scene = require("spec.scene").new(setup, teardown, before_each, after_each)

local README = helper.read_file("README.md")

local function blocks_of(section)
  local found = {}
  local text = section and README:match("\n## " .. section .. "\n(.-)\n## ")
    or README:match("^(.-)\n## ")
  for block in text:gmatch("```lua\n(.-)```") do
    found[#found + 1] = block
  end
  return found
end

describe("the README", function()
  it("shows all its Lua in the sections that are tried here", function()
    local count = select(2, README:gsub("```lua\n", ""))
    assert.are.equal(count, #blocks_of() + #blocks_of("A script") + #blocks_of("Storage"))
  end)

  it("begins with two lines that get a token", function()
    local block = blocks_of()[1]
    local out, err, status = helper.run_lua(block .. "print(token)", scene:env())
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.are.equal(scene.sandbox:grant().access_token .. "\n", out)
  end)

  it("has a script that calls the API", function()
    local block = blocks_of("A script")[1]
    local changed
    block, changed = block:gsub("https://api%.lucid%.co", scene.sandbox.url)
    assert.are.equal(1, changed)
    local out, err, status = helper.run_lua(block, scene:env())
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.is_true(helper.contains(out, '"email"'), out)
    assert.are.equal(1, scene.sandbox:counts().api_requests)
  end)

  it("has storages that can be used as they are written", function()
    local storages = {}
    local names = setmetatable({}, {
      __newindex = function(_, name, value)
        assert.are.equal("storage", name)
        storages[#storages + 1] = value
      end,
    })
    assert(load(blocks_of("Storage")[1], "README", "t", names))()
    assert.are.equal(4, #storages)
    for _, storage in ipairs(storages) do
      lucid.new({ storage = storage }):close()
    end
  end)
end)

describe("each function that programs call", function()
  for file, pattern in pairs({
    ["lua/lucidauth.lua"] = "^lucid%.",
    ["lua/lucidauth/module.lua"] = "^function lucid%.",
    ["lua/lucidauth/client.lua"] = "^function Client:",
    ["lua/lucidauth/sandbox.lua"] = "^function sandbox%.",
    ["lua/lucidauth/sandbox/server.lua"] = "^function Server:",
  }) do
    it("is described where it stands: " .. file, function()
      local count, before = 0, ""
      for line in (helper.read_file(file) .. "\n"):gmatch("(.-)\n") do
        -- the slow ways are token()'s and authorization()'s own, which have their places
        if line:find(pattern) and not line:find(":slow_", 1, true) then
          count = count + 1
          assert.is_truthy(before:find("^%-%-%-"), line)
        end
        before = line
      end
      assert.is_true(count > 0)
    end)
  end
end)
