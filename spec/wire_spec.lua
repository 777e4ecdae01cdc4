-- The requests on the wire: a refresh is one POST on a connection of its own,
-- even if the server fails it, and it is sent again only when the server
-- says that the refresh token is still alive.

local socket = require("socket")

local helper = require("spec.helper")
local parallel = require("spec.parallel")
local tokens = require("spec.tokens")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

-- Most of what they do is to wait for the flow's pauses.
local it = parallel.deal(9, it, teardown)

-- A stored grant, whose refresh token nobody has to be asked about first.
local function store()
  tokens.write(fixture.path, { refresh_token = sandbox.refresh_token })
end

-- A new client's call for a token, and how long it took.
local function call(changes)
  if not helper.read_file(fixture.path) then
    store()
  end
  local client = fixture:client(changes)
  local start = socket.gettime()
  local token, message, code = client:token()
  return { token = token, message = message, code = code, seconds = socket.gettime() - start }
end

-- The requests in order, "token introspect token"; each must have had a
-- connection of its own.
local function requests()
  local log, names, used = sandbox:log(), {}, {}
  for i, entry in ipairs(log.entries) do
    if entry.endpoint ~= "api" then
      names[i] = entry.endpoint
      assert.is_false(entry.reused)
      assert.is_nil(used[entry.connection])
      used[entry.connection] = true
    end
  end
  assert.are.equal(0, log.counts.reuses)
  assert.are.equal(0, log.counts.overlaps)
  return table.concat(names, " ")
end

local function assert_works(result)
  assert.is_true(tokens.works(sandbox, (assert(result.token, result.message))))
  assert.are.equal(sandbox:grant().access_token, result.token)
end

local function assert_lost(result)
  assert.is_nil(result.token)
  assert.are.equal("lost_rotation", result.code)
end

describe("a server that closes connections which are used again", function()
  for _, reset in ipairs({ false, true }) do
    it((reset and "with a reset" or "in order") .. " is not met", function()
      store()
      sandbox:faults({ kind = "close_reused", times = "always", reset = reset })
      local client = fixture:client()
      assert(client:token())
      for _ = 1, 5 do
        assert(client:refresh())
      end
      assert.are.equal("token token token token token token", requests())
      assert.are.equal(6, sandbox:counts().rotations)
      assert.are.equal(0, sandbox:counts().faults)
    end)
  end
end)

describe("an answer that comes", function()
  it("after the timeout, but before twice that, is waited for", function()
    sandbox:faults({ kind = "slow", seconds = 4.5 })
    local result = call({ timeout = 4 })
    assert_works(result)
    assert.is_true(result.seconds > 4)
    assert.are.equal("token", requests())
  end)

  it("after twice the timeout is lost, and that is said", function()
    sandbox:faults({ kind = "slow", seconds = helper.LONG })
    local result = call({ timeout = helper.SHORT })
    assert_lost(result)
    assert.is_true(result.seconds >= 2 * helper.SHORT, result.seconds)
    assert.are.equal("token introspect", requests())
  end)

  it("late to a request that waited for its turn is waited for all the same", function()
    sandbox:settings({ latency = 4.5, rotate_after_latency = true })
    assert_works(call({ timeout = 4 }))
    assert.are.equal("token", requests())
  end)
end)

describe("half an answer", function()
  -- Where it may break off: within the status line, the headers, the body.
  for _, bytes in ipairs({ 0, 1, 12, 15, 40, 100, 200, 250, 300 }) do
    it("of " .. bytes .. " bytes is one POST and one question", function()
      sandbox:faults({ kind = "half", bytes = bytes })
      assert_lost(call())
      assert.are.equal("token introspect", requests())
      assert.are.equal(1, sandbox:counts().rotations)
    end)
  end

  it("of unknown size is one POST and one question", function()
    sandbox:faults({ kind = "half" })
    assert_lost(call())
    assert.are.equal("token introspect", requests())
  end)

  it("to the question, too, is one question more", function()
    sandbox:faults({
      { kind = "half" },
      { kind = "half", endpoint = "introspect" },
    })
    assert_lost(call())
    assert.are.equal("token introspect introspect", requests())
  end)
end)

describe("a connection that closes", function()
  for _, reset in ipairs({ false, true }) do
    local how = reset and " with a reset" or ""

    it("before the server rotated" .. how .. " is one POST more", function()
      sandbox:faults({ kind = "close", reset = reset })
      assert_works(call())
      assert.are.equal("token introspect token", requests())
    end)

    it("after the server rotated" .. how .. " is never one POST more", function()
      sandbox:faults({ kind = "close", when = "after", reset = reset })
      assert_lost(call())
      assert_lost(call())
      assert.are.equal("token introspect", requests():match("^token introspect"))
      assert.are.equal(1, sandbox:counts().token_requests)
    end)
  end

  it("again and again is four POSTs, each after a question", function()
    sandbox:faults({ kind = "close", times = "always" })
    local result = call()
    assert.is_nil(result.token)
    assert.are.equal("network", result.code)
    assert.are.equal(
      "token introspect token introspect token introspect token introspect", requests())
    assert.is_true(sandbox:grant().refresh_live)
  end)
end)

describe("no answer", function()
  it("before the server rotated is one POST more, once that is known", function()
    sandbox:faults({ kind = "hang" })
    local result = call({ timeout = helper.SHORT })
    assert.is_true(result.seconds >= 2 * helper.SHORT, result.seconds)
    assert_works(result.token and result or call())
    assert.are.equal("token introspect token", requests())
  end)

  it("after the server rotated is none", function()
    sandbox:faults({ kind = "hang", when = "after" })
    assert_lost(call({ timeout = helper.SHORT }))
    assert.are.equal("token introspect", requests())
  end)

  it("to the question either sends nothing until there is one", function()
    sandbox:faults({
      { kind = "close" },
      { kind = "hang", endpoint = "introspect", times = "always" },
    })
    for questions = 1, 3 do
      local result = call({ timeout = helper.SHORT })
      assert.are.equal("timeout", result.code)
      assert.are.equal("token" .. (" introspect"):rep(questions), requests())
    end
    sandbox:clear_faults()
    assert_works(call())
    assert.are.equal("token introspect introspect introspect introspect token", requests())
  end)

  it("keeps every other caller from sending", function()
    assert(fixture:client():token())
    sandbox:faults({ kind = "held" })
    local process = helper.start({ helper.interpreter, "-e", [[
      print(require("lucidauth").refresh())
    ]] }, fixture:env({ LUCID_REFRESH_TOKEN = false }))
    helper.eventually(function()
      return sandbox:counts().token_requests == 2
    end)
    local other = helper.start({ helper.interpreter, "-e", [[
      print(require("lucidauth").token())
    ]] }, fixture:env({ LUCID_REFRESH_TOKEN = false }))
    sandbox:clear_faults()
    local token = other:wait():match("%S+")
    assert.are.equal(process:wait(), token .. "\n")
    assert.are.equal("introspect token token", requests()) -- the first one before the start
  end)
end)
