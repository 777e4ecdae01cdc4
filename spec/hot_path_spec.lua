-- The short way to a token, which asks nobody: it ends with the token, whoever
-- noticed that first.

local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

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
    lucid.configure(fixture:options())
    local other = fixture:client()
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
  lucid.configure(fixture:options({
    on_event = function()
      WAYS.token()
      WAYS.authorization()
    end,
  }))
  local other = fixture:client()
  for _ = 1, 3 do
    WAYS.token()
    local new = assert(other:refresh())
    for _, way in pairs(WAYS) do
      assert.are.equal(new, way())
    end
  end
end)

describe("accounts by name", function()
  local function directory()
    return { type = "file", directory = fixture.folder }
  end

  local function log_in(name)
    tokens.write(fixture.folder .. "/" .. name .. ".json",
      tokens.record(tokens.pair(sandbox), 3600))
  end

  local function store(name, token)
    tokens.write(fixture.folder .. "/" .. name .. ".json",
      { access_token = token, refresh_token = "R", expires_at = os.time() + 3600 })
  end

  it("have their own tokens, however they are asked for", function()
    local own = { default = "A", anna = "B" }
    store("default", own.default)
    store("anna", own.anna)
    lucid.configure(fixture:options({ storage = directory() }))
    local client = fixture:client({ storage = directory() })
    for _ = 1, 3 do
      for _, ways in ipairs({ lucid, client }) do
        local this = ways == client
        local function ask(way, ...)
          if this then
            return client[way](client, ...)
          end
          return lucid[way](...)
        end
        assert.are.equal(own.default, ask("token"))
        assert.are.equal(own.default, ask("token", nil))
        assert.are.equal(own.anna, ask("token", "anna"))
        assert.are.equal("Bearer " .. own.anna, ask("authorization", "anna"))
        assert.are.equal("Bearer " .. own.default, ask("authorization"))
        assert.is_nil((ask("token", "bert")))
      end
    end
  end)

  it("have the new token when another call has noticed it before", function()
    log_in("anna")
    local client = fixture:client({ storage = directory() })
    local other = fixture:client({ storage = directory() })
    for _ = 1, 3 do
      client:token("anna")
      client:authorization("anna")
      local new = assert(other:refresh("anna"))
      assert.are.equal("Bearer " .. new, client:authorization("anna"))
      assert.are.equal(new, client:token("anna"))
    end
  end)

  it("that are made up leave nothing in memory and no file", function()
    local client = fixture:client({ storage = directory(), max_accounts = 50 })
    local core = {}
    local function make_up(first, last)
      for i = first, last do
        assert.is_nil((client:token("user-" .. i)))
        assert.is_nil((client:authorization("user-" .. i)))
        client:status("user-" .. i)
        client:reject("token", "user-" .. i)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    core[1] = make_up(1, 200)
    core[2] = make_up(201, 1000)
    assert.is_true(core[2] < core[1] * 1.1)
    local files = io.popen("ls -A " .. fixture.folder):read("*a")
    assert.are.equal("", files)
  end)

  it("come and go, and each has its own token", function()
    for i = 1, 12 do
      store("user-" .. i, "token-" .. i)
    end
    for _, most in ipairs({ 1, 2, 3, 5, 100 }) do
      local client = fixture:client({ storage = directory(), max_accounts = most })
      for _ = 1, 3 do
        for i = 1, 12 do
          for _ = 1, 2 do
            assert.are.equal("token-" .. i, client:token("user-" .. i))
            assert.are.equal("Bearer token-" .. i, client:authorization("user-" .. i))
          end
        end
      end
    end
  end)

  it("are not handed out any more once their client is closed", function()
    store("anna", "A")
    local client = fixture:client({ storage = directory() })
    local token, authorization = client.token, client.authorization
    assert.are.equal("A", token(client, "anna"))
    assert.are.equal("Bearer A", authorization(client, "anna"))
    client:close()
    assert.has_error(function()
      token(client, "anna")
    end, "this lucidauth client is closed")
    assert.has_error(function()
      authorization(client, "anna")
    end, "this lucidauth client is closed")
  end)

  it("are the asked client's, also with another one's method", function()
    store("anna", "A")
    local one = fixture:client({ storage = directory() })
    local other = fixture:client({ storage = { type = "file", directory = helper.tmpdir() } })
    assert.are.equal("A", one:token("anna"))
    for _ = 1, 2 do
      assert.is_nil((one.token(other, "anna")))
      assert.are.equal("A", other.token(one, "anna"))
      assert.are.equal("A", one:token("anna"))
      assert.is_nil((other:token("anna")))
    end
  end)
end)

describe("the rest of the module", function()
  local function run(program)
    tokens.write(fixture.path, { access_token = "A", refresh_token = "R",
      expires_at = os.time() + 3600 })
    local out, err, code = helper.run_lua(program, fixture:env())
    assert.are.equal("", err)
    assert.are.equal(0, code)
    return out
  end

  it("is not loaded for a token that is good", function()
    local out = run([[
      local lucid = require("lucidauth")
      assert(lucid.token() == "A")
      assert(lucid.authorization() == "Bearer A")
      for name in pairs(package.loaded) do
        if name:find("lucidauth", 1, true) then print(name) end
      end
    ]])
    local names = helper.lines(out)
    table.sort(names)
    assert.are.same({ "lucidauth", "lucidauth.core" }, names)
  end)

  it("is there for all who ask for it", function()
    run([[
      local lucid = require("lucidauth")
      local token = lucid.token
      assert(token() == "A")
      for name in ("refresh reject status metrics configure new close"):gmatch("%a+") do
        assert(type(lucid[name]) == "function", name)
      end
      assert(lucid.no_such_function == nil)
      assert(lucid.status().state == "ready")
      assert(lucid.token == token and token() == "A" and token(nil) == "A")
      assert(lucid.close())
      assert(token() == "A")
    ]])
  end)

  it("is loaded for a call that is a mistake, and names its line", function()
    run([[
      local lucid = require("lucidauth")
      local ok, message = pcall(function()
        lucid:token()
      end)
      assert(not ok and message:find("3: write lucid.token(...), with a dot", 1, true), message)
      local token, problem, code = lucid.token("anna")
      assert(token == nil and code == "config" and problem:find("anna", 1, true), problem)
      assert(lucid.token() == "A")
    ]])
  end)

  it("is there after a first call that failed", function()
    run([[
      local lucid = require("lucidauth")
      local path = os.getenv("LUCID_TOKEN_FILE")
      assert(os.rename(path, path .. ".away"))
      local file = assert(io.open(path, "w"))
      file:write("no record")
      file:close()
      for _ = 1, 2 do
        local token, message, code = lucid.token()
        assert(token == nil and code == "storage" and message:find(path, 1, true), message)
      end
      assert(os.rename(path .. ".away", path))
      assert(lucid.authorization() == "Bearer A")
      assert(lucid.status().state == "ready")
    ]])
  end)

  if not rawget(_G, "jit") then -- which asks nobody what a table holds
    it("is listed with it", function()
      run([[
        local count = 0
        for _, value in pairs(require("lucidauth")) do
          count = count + (type(value) == "function" and 1 or 0)
        end
        assert(count >= 9)
      ]])
    end)
  end
end)
