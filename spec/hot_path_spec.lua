-- The short way to a token, which asks nobody: it ends with the token, whoever
-- noticed that first.

local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local sandbox, path

local function options()
  return {
    api_url = sandbox.url,
    client_id = sandbox.client_id,
    client_secret = sandbox.client_secret,
    refresh_token = sandbox.refresh_token,
    storage = path,
  }
end

setup(function()
  sandbox = helper.start_sandbox()
end)

teardown(function()
  sandbox:stop()
end)

before_each(function()
  sandbox:reset()
  path = helper.tmpdir() .. "/token.json"
end)

after_each(function()
  lucid.close()
end)

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
    lucid.configure(options())
    local other = lucid.new(options())
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
    other:close()
  end)
end

it("has the new token when an event handler has asked for it before", function()
  local given = options()
  given.on_event = function()
    WAYS.token()
    WAYS.authorization()
  end
  lucid.configure(given)
  local other = lucid.new(options())
  for _ = 1, 3 do
    WAYS.token()
    local new = assert(other:refresh())
    for _, way in pairs(WAYS) do
      assert.are.equal(new, way())
    end
  end
  other:close()
end)
