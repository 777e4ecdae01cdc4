-- The short way to a token, which asks nobody: it ends with the token, whoever
-- noticed that first.

local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local scene = require("spec.scene").new(setup, teardown, before_each, after_each)
local sandbox = scene.sandbox

-- Every way to ask the module's own client for its token.
local WAYS = {
  token = function()
    return lucid.token()
  end,
  authorization = function()
    return lucid.authorization():match("^Bearer (.*)$")
  end,
}

for first, ask in pairs(WAYS) do
  it("has the new token when another call has noticed it before: " .. first, function()
    lucid.configure(scene:options())
    local other = scene:client()
    for _, way in pairs(WAYS) do
      way()
    end
    for _ = 1, 3 do
      local new = assert(other:refresh())
      assert.are.equal(new, ask())
      for name, way in pairs(WAYS) do
        assert.are.equal(new, way(), name)
        assert.is_true(tokens.works(sandbox, way()))
      end
    end
  end)
end

it("has the new token when an event handler has asked for it before", function()
  lucid.configure(scene:options({
    on_event = function()
      WAYS.token()
      WAYS.authorization()
    end,
  }))
  local other = scene:client()
  for _ = 1, 3 do
    WAYS.token()
    local new = assert(other:refresh())
    for _, way in pairs(WAYS) do
      assert.are.equal(new, way())
    end
  end
end)
