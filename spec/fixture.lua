--- Where most specs play: a sandbox, a new folder for each test with the path of
--- a token file in it, and clients that are closed when the test is over.

local assert = require("luassert")

local attempt = require("spec.attempt")
local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local fixture = {}

---@class spec.Scene
---@field sandbox helper.Sandbox
---@field folder string this test's
---@field path string of this test's token file, which is not there yet
---@field events LucidEvent[] what the clients of this test have told
local Scene = {}
Scene.__index = Scene

--- The set-up of a file, or of a describe block.
---@param setup function busted's, like the next ones; a module does not see them
---@param teardown function
---@param before_each function
---@param after_each function
---@param settings lucidauth.sandbox.Settings|nil
---@return spec.Scene
function fixture.new(setup, teardown, before_each, after_each, settings)
  local self = setmetatable({ sandbox = helper.new_sandbox(settings) }, Scene)
  setup(function()
    self.sandbox:start()
  end)
  teardown(function()
    self.sandbox:stop()
  end)
  before_each(function()
    self.sandbox:reset()
    self.folder = helper.tmpdir()
    self.path = self.folder .. "/token.json"
    self.clients, self.events = {}, {}
  end)
  after_each(function()
    for _, client in ipairs(self.clients) do
      client:close()
    end
    lucid.close()
  end)
  return self
end

--- Options that point at the sandbox and at the token file.
---@param changes LucidOptions|nil
---@return LucidOptions
function Scene:plain_options(changes)
  return helper.merge({
    api_url = self.sandbox.url,
    client_id = self.sandbox.client_id,
    client_secret = self.sandbox.client_secret,
    refresh_token = self.sandbox.refresh_token,
    storage = self.path,
  }, changes)
end

--- The same, and every event is noted.
---@param changes LucidOptions|nil
---@return LucidOptions
function Scene:options(changes)
  return self:plain_options(helper.merge({
    on_event = function(event)
      self.events[#self.events + 1] = event
    end,
  }, changes))
end

---@param changes LucidOptions|nil
---@return LucidClient
function Scene:client(changes)
  local client = lucid.new(self:options(changes))
  self.clients[#self.clients + 1] = client
  return client
end

--- The same for a process that has everything from its environment.
---@param changes table<string, string|false>|nil
---@return table<string, string|false>
function Scene:env(changes)
  return tokens.env(helper.merge(self.sandbox.env, { LUCID_TOKEN_FILE = self.path }, changes))
end

--- Puts genuine tokens into the token file.
---@param left number seconds that the access token has; negative: it has expired
---@param changes table|nil further fields of the record
---@return table record
function Scene:store(left, changes)
  local record = helper.merge(tokens.record(tokens.pair(self.sandbox), left), changes)
  tokens.write(self.path, record)
  return record
end

--- How many requests the token endpoint has had.
---@return integer
function Scene:posts()
  return self.sandbox:counts().token_requests
end

---@return string names with a space between them
function Scene:names_of_events()
  return attempt.names(self.events)
end

--- A secret may be written into a message by mistake; it never may.
---@param text string
function Scene:assert_no_secret(text)
  for _, grant in ipairs(self.sandbox:grants()) do
    assert.is_false(helper.contains(text, grant.refresh_token))
    assert.is_false(grant.access_token ~= nil and helper.contains(text, grant.access_token))
  end
  assert.is_false(helper.contains(text, self.sandbox.refresh_token))
  assert.is_false(helper.contains(text, self.sandbox.client_secret))
end

--- A call for a token returned this failure.
---@param code LucidCode
---@param token string|nil
---@param message string|nil
---@param got LucidCode|nil
function Scene:assert_failure(code, token, message, got)
  assert.is_nil(token)
  assert.are.equal("string", type(message))
  assert.are.equal(code, got)
  self:assert_no_secret(message)
end

return fixture
