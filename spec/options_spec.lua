-- Options are checked once; what is wrong raises, naming the option and the
-- nearest valid name, at the line that gave it.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local contains = helper.contains

-- Looks like something that must never be shown.
local SECRET = "s3cr3t-in-the-wrong-place"

local function message_of(options, maker)
  local ok, message = pcall(function()
    local client = (maker or lucid.new)(options)
    return client
  end)
  assert.is_false(ok)
  assert.are.equal("string", type(message))
  assert.is_false(contains(message, SECRET))
  return message
end

-- Every part stands in the message.
local function assert_raises(options, ...)
  local message = message_of(options)
  for _, part in ipairs({ ... }) do
    assert.is_true(contains(message, part), message)
  end
end

local function assert_accepted(options)
  local client = lucid.new(options)
  assert.is_function(client.token)
  client:close()
end

describe("an unknown option", function()
  it("is named, with the nearest valid name", function()
    for wrong, right in pairs({
      client_di = "client_id",
      clientid = "client_id",
      client_secert = "client_secret",
      refreshtoken = "refresh_token",
      refresh_tokne = "refresh_token",
      store = "storage",
      apiurl = "api_url",
      token_uri = "token_url",
      introspect_url = "introspection_url",
      refresh_befor = "refresh_before",
      refresh_waits = "refresh_wait",
      Timeout = "timeout",
      locktimeout = "lock_timeout",
      default_life_time = "default_lifetime",
      cafile = "ca_file",
      token_params = "token_parameters",
      on_events = "on_event",
    }) do
      assert_raises({ [wrong] = SECRET }, '"' .. wrong .. '"', '"' .. right .. '"')
    end
  end)

  it("is named in a storage, too", function()
    assert_raises({ storage = { type = "file", pth = SECRET } }, '"pth"', '"path"')
    assert_raises({ storage = { dir = SECRET, type = "file" } }, '"dir"', '"directory"')
    assert_raises({ storage = { type = "memory", path = SECRET } }, '"path"', '"type"')
    assert_raises({ storage = { laod = print, save = print } }, '"laod"', '"load"')
    assert_raises({ storage = { load = print, save = print, unlok = print } },
      '"unlok"', '"unlock"')
  end)

  it("is named even if its value says nothing", function()
    assert_raises({ clientid = false }, '"clientid"')
  end)

  it("may be no position in a list", function()
    assert_raises({ SECRET }, "named")
    assert_raises({ [true] = SECRET }, "named")
    assert_raises({ storage = { SECRET } }, "named")
  end)
end)

describe("misuse", function()
  local function line_of(maker, options)
    local line = debug.getinfo(1, "l").currentline + 2
    local _, message = pcall(function()
      local client = maker(options)
      return client
    end)
    return message, "options_spec.lua:" .. line .. ":"
  end

  it("is told at the line of the caller", function()
    for _, maker in ipairs({ lucid.new, lucid.configure }) do
      for _, options in ipairs({
        { clientid = "x" },
        { SECRET },
        { timeout = "soon" },
        { timeout = -1 },
        { client_id = "" },
        { client_secret = true },
        { on_event = "x" },
        { sleep = 0.1 },
        { token_request = "xml" },
        { storage = 42 },
        { storage = "" },
        { storage = { type = "mermory" } },
        { storage = { type = "file", pth = "x" } },
        { storage = { type = "file", path = 42 } },
        { storage = { path = "a", directory = "b" } },
        { storage = { load = print } },
        { storage = { load = print, save = 42 } },
        { storage = { load = print, save = print, lock = print } },
        { api_url = "http://api.example.invalid" },
        { refresh_token = "a\nb" },
      }) do
        local message, place = line_of(maker, options)
        assert.is_true(contains(message, place), message)
      end
    end
  end)

  it("is told at the line of the caller when there is no table at all", function()
    for _, value in ipairs({ 42, "token_info.json", true, print }) do
      local message, place = line_of(lucid.new, value)
      assert.is_true(contains(message, place), message)
      message, place = line_of(lucid.configure, value)
      assert.is_true(contains(message, place), message)
    end
    local message, place = line_of(lucid.configure, nil)
    assert.is_true(contains(message, place), message)
  end)

  it("leaves nothing behind", function()
    local before = lucid.status
    message_of({ clientid = "x" }, lucid.configure)
    assert.are.equal(before, lucid.status)
  end)
end)

describe("an option of the wrong type", function()
  local samples = {
    string = SECRET, number = 42, boolean = true, table = {}, ["function"] = print,
  }

  local function refuses(name, ...)
    local fine = {}
    for _, kind in ipairs({ ... }) do
      fine[kind] = true
    end
    it("is refused: " .. name, function()
      for kind, value in pairs(samples) do
        if not fine[kind] then
          assert_raises({ [name] = value }, name, kind)
        end
      end
    end)
  end

  for _, name in ipairs({
    "client_id", "client_secret", "refresh_token", "api_url", "token_url",
    "introspection_url", "token_request", "ca_file",
  }) do
    refuses(name, "string")
  end
  for _, name in ipairs({
    "refresh_before", "refresh_wait", "timeout", "lock_timeout", "default_lifetime",
  }) do
    refuses(name, "number")
  end
  refuses("on_event", "function")
  refuses("token_parameters", "table")
  refuses("sleep", "function")
  refuses("storage", "string", "table")

  it("says how to wait only where a thread does the work", function()
    assert_raises({ sleep = print, background = false }, "sleep", "background")
    assert_accepted({ sleep = print })
    assert_accepted({ sleep = print, background = true })
  end)

  it("is false only where that means something", function()
    for _, name in ipairs({
      "client_id", "refresh_token", "api_url", "token_url", "token_request",
      "ca_file", "timeout", "on_event", "storage",
    }) do
      assert_raises({ [name] = false }, name)
    end
    assert_accepted({ client_secret = false })
    assert_accepted({ introspection_url = false })
  end)
end)

describe("a text option", function()
  it("is not empty", function()
    for _, name in ipairs({
      "client_id", "client_secret", "refresh_token", "api_url", "token_url",
      "introspection_url", "ca_file", "storage", "token_request",
    }) do
      assert_raises({ [name] = "" }, name)
    end
  end)

  it("that goes to the server has no control characters", function()
    for _, name in ipairs({ "client_id", "client_secret", "refresh_token" }) do
      for _, text in ipairs({ "\n", "\r", "a\nb", "a\127", "\tb" }) do
        assert_raises({ [name] = SECRET .. text }, name)
      end
    end
  end)

  it("may hold anything else", function()
    assert_accepted({
      client_id = "ü \"\\' %s", client_secret = "=&+ %00", refresh_token = ("x"):rep(10000),
      storage = { type = "memory" },
    })
  end)

  it("is not cut short at a NUL", function()
    for _, name in ipairs({
      "client_id", "client_secret", "refresh_token", "api_url", "token_url",
      "introspection_url", "ca_file", "storage",
    }) do
      assert_raises({ [name] = "https://localhost/\0" .. SECRET }, name)
    end
    assert_raises({ storage = { path = "a\0b" } }, "storage.path")
    assert_raises({ storage = { directory = "a\0b" } }, "storage.directory")
  end)
end)

describe("token_parameters", function()
  it("are names and texts", function()
    for _, value in ipairs({ 1, true, print, {} }) do
      assert_raises({ token_parameters = { audience = value } }, "token_parameters", type(value))
    end
    assert_raises({ token_parameters = { SECRET } }, "token_parameters", "named")
    assert_raises({ token_parameters = { [true] = SECRET } }, "token_parameters", "named")
    assert_raises({ token_parameters = { audience = "" } }, "token_parameters", "audience", "empty")
    assert_raises({ token_parameters = { audience = SECRET .. "\0" } }, "token_parameters", "NUL")
    assert_raises({ token_parameters = { ["client_id\0"] = SECRET } }, "token_parameters")
  end)

  it("have names that a request can have", function()
    for _, name in ipairs({ "", " ", "a b", "a&b", "a=b", "ü", "a[]", "a\n", "a%5F" }) do
      assert_raises({ token_parameters = { [name] = SECRET } }, "token_parameters", "name")
    end
    assert_accepted({ token_parameters = { ["A-b.c_0"] = "x" } })
  end)

  it("never take the place of what lucidauth fills itself", function()
    for _, name in ipairs({
      "grant_type", "refresh_token", "client_id", "client_secret", "GRANT_TYPE", "Refresh_Token",
      "client.id", "client-secret",
    }) do
      assert_raises({ token_parameters = { [name] = SECRET } }, "token_parameters",
        "client_secret")
    end
    assert_accepted({ token_parameters = { refresh_token_hint = "x", client = "x", scope = "a" } })
  end)

  it("are many, but not endless", function()
    local many = {}
    for i = 1, 100 do
      many["name-" .. i] = ("x"):rep(1000)
    end
    assert_accepted({ token_parameters = many })
    assert_accepted({ token_parameters = {} })
    many["one-more"] = "x"
    assert_raises({ token_parameters = many }, "token_parameters", "100")
  end)
end)

describe("a number of seconds", function()
  local names = {
    "refresh_before", "refresh_wait", "timeout", "lock_timeout", "default_lifetime",
  }

  it("is neither negative nor endless", function()
    for _, name in ipairs(names) do
      for _, value in ipairs({ -1, -0.001, math.huge, -math.huge, 0 / 0 }) do
        assert_raises({ [name] = value }, name, "seconds")
      end
    end
  end)

  it("may be zero, a fraction, or large", function()
    for _, name in ipairs(names) do
      for _, value in ipairs({ 0, 0.001, 1e9 }) do
        assert_accepted({ [name] = value, storage = { type = "memory" } })
      end
    end
  end)
end)

describe("token_request", function()
  it("is one of three", function()
    for _, value in ipairs({ "json", "form", "basic" }) do
      assert_accepted({ token_request = value })
    end
    assert_raises({ token_request = "jsno" }, "token_request", '"json"')
    assert_raises({ token_request = "fomr" }, "token_request", '"form"')
    assert_raises({ token_request = "Basic" }, "token_request", '"basic"')
  end)
end)

describe("storage", function()
  it("is a path, or a table of one of these forms", function()
    local folder = helper.tmpdir()
    for _, storage in ipairs({
      folder .. "/token.json",
      { path = folder .. "/token.json" },
      { type = "file", path = folder .. "/token.json" },
      { directory = folder },
      { type = "file", directory = folder },
      { type = "memory" },
      { load = print, save = print },
      { load = print, save = print, sleep = print },
      { load = print, save = print, lock = print, unlock = print },
      { load = print, save = print, lock = print, unlock = print, sleep = print },
    }) do
      assert_accepted({ storage = storage })
    end
    assert_accepted({ storage = { type = "file" } })
  end)

  it("needs what it is made of", function()
    assert_raises({ storage = {} }, "load", "save")
    assert_raises({ storage = { load = print } }, "load", "save")
    assert_raises({ storage = { save = print } }, "load", "save")
    assert_raises({ storage = { load = print, save = print, lock = print } }, "lock", "unlock")
    assert_raises({ storage = { load = print, save = print, unlock = print } }, "lock", "unlock")
    assert_raises({ storage = { path = "a", directory = "b" } }, "path", "directory")
  end)

  it("has fields of the right types", function()
    assert_raises({ storage = { type = "file", path = 42 } }, "storage.path", "number")
    assert_raises({ storage = { directory = true } }, "storage.directory", "boolean")
    assert_raises({ storage = { path = "" } }, "storage.path")
    assert_raises({ storage = { directory = "" } }, "storage.directory")
    assert_raises({ storage = { load = SECRET, save = print } }, "storage.load", "string")
    assert_raises({ storage = { load = print, save = print, sleep = 1 } },
      "storage.sleep", "number")
    assert_raises({ storage = { type = 42 } }, "storage.type", "number")
  end)

  it("has a type that exists", function()
    assert_raises({ storage = { type = "flie" } }, '"file"')
    assert_raises({ storage = { type = "Memory" } }, '"memory"')
  end)

  it("is not one thing and another", function()
    assert_raises({ storage = { type = "file", load = print, save = print } }, "unknown field")
    assert_raises({ storage = { type = "memory", load = print, save = print } }, "unknown field")
    assert_raises({ storage = { path = "a", load = print, save = print } }, "unknown field")
  end)

  it("is not changed, nor looked at again", function()
    local storage = { type = "file", path = helper.tmpdir() .. "/token.json" }
    local options = { storage = storage, client_id = "x" }
    local path = storage.path
    local client = lucid.new(options)
    assert.are.same({ storage = { type = "file", path = path }, client_id = "x" }, options)
    assert.are.equal(storage, options.storage)
    storage.path, options.timeout = nil, "soon"
    assert.are.equal("empty", client:status().state)
    client:close()
  end)
end)

describe("plain http", function()
  local names = { "api_url", "token_url", "introspection_url" }

  it("goes to this machine only", function()
    for _, name in ipairs(names) do
      for _, host in ipairs({
        "api.lucid.co", "192.168.1.1", "10.0.0.1", "0.0.0.0", "[::]", "[2001:db8::1]",
        "localhost.example.com", "127.0.0.1.example.com",
      }) do
        assert_raises({ [name] = "http://" .. host .. "/" }, name, "https")
      end
      for _, host in ipairs({ "localhost", "127.0.0.1", "127.1.2.3:8080", "[::1]", "LOCALHOST" }) do
        assert_accepted({ [name] = "http://" .. host .. "/" })
      end
    end
  end)

  it("is not what https is", function()
    for _, name in ipairs(names) do
      assert_accepted({ [name] = "https://auth.example.com/oauth2" })
      assert_raises({ [name] = "ftp://localhost/" }, name, "https://")
      assert_raises({ [name] = "localhost:8080" }, name)
      assert_raises({ [name] = "/oauth2/token" }, name)
    end
  end)

  it("and https show no password of a URL", function()
    for _, name in ipairs(names) do
      assert_raises({ [name] = "https://me:" .. SECRET .. "@localhost/" }, name, "user name")
      assert_raises({ [name] = "http://me:" .. SECRET .. "@localhost/" }, name, "user name")
    end
  end)

  it("is explained in whole sentences", function()
    for _, url in ipairs({ "http://api.example.com", "ftp://x", "https://", "https://h/#x" }) do
      local message = message_of({ api_url = url })
      assert.is_truthy(message:find("%. Nothing was sent or changed%.$"), message)
    end
  end)
end)

describe("what is sent", function()
  local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
  local sandbox = fixture.sandbox

  -- A client that keeps nothing.
  local function client_with(changes)
    return fixture:client(helper.merge({ storage = { type = "memory" } }, changes))
  end

  -- The body of the refresh, by an address of the sandbox's that notes bodies.
  local function body_with(changes)
    local client = client_with(helper.merge({
      token_url = sandbox.url .. "/elsewhere?x=1",
      client_id = "an id & more",
      client_secret = "a secret: ü",
      refresh_token = "a token = %",
    }, changes))
    assert.is_nil((client:token()))
    local entries = sandbox:log(1).entries
    assert.are.equal("/elsewhere", entries[1].path)
    assert.are.equal("x=1", entries[1].query)
    return entries[1].body
  end

  it("is JSON to Lucid, a form to another provider, unless told otherwise", function()
    local expected = {
      grant_type = "refresh_token", refresh_token = "a token = %",
      client_id = "an id & more", client_secret = "a secret: ü",
    }
    assert.are.same(expected, codec.decode_form(body_with({})))
    assert.are.same(expected, codec.decode_json(body_with({ token_request = "json" })))
    client_with({ api_url = sandbox.url .. "/elsewhere" }):token()
    assert.are.equal("{", sandbox:log(1).entries[1].body:sub(1, 1))
  end)

  it("has the fields of token_parameters besides", function()
    local more = { audience = "https://api.example.com/?a=b&c", ["x-y.z_0"] = "ü \"%\\\n" }
    local expected = helper.merge({
      grant_type = "refresh_token", refresh_token = "a token = %",
      client_id = "an id & more", client_secret = "a secret: ü",
    }, more)
    for form, decode in pairs({ json = codec.decode_json, form = codec.decode_form }) do
      local changes = { token_request = form, token_parameters = more }
      assert.are.same(expected, decode(body_with(changes)))
    end
    local bare = { grant_type = "refresh_token", refresh_token = "a token = %" }
    assert.are.same(helper.merge(bare, more),
      codec.decode_form(body_with({ token_request = "basic", token_parameters = more })))
  end)

  it("is a form", function()
    assert.are.same({
      grant_type = "refresh_token", refresh_token = "a token = %",
      client_id = "an id & more", client_secret = "a secret: ü",
    }, codec.decode_form(body_with({ token_request = "form" })))
  end)

  it("is a form without the secrets that HTTP Basic carries", function()
    assert.are.same({ grant_type = "refresh_token", refresh_token = "a token = %" },
      codec.decode_form(body_with({ token_request = "basic" })))
  end)

  it("is taken in each of these forms", function()
    for _, form in ipairs({ "json", "form", "basic" }) do
      sandbox:reset()
      local client = client_with({ token_request = form })
      assert.is_true(tokens.works(sandbox, (assert(client:token()))))
    end
  end)

  it("has no secret of a public client", function()
    local expected = {
      grant_type = "refresh_token", refresh_token = "a token = %", client_id = "an id & more",
    }
    for form, decode in pairs({ json = codec.decode_json, form = codec.decode_form }) do
      local body = body_with({ client_secret = false, token_request = form })
      assert.are.same(expected, decode(body))
    end
  end)

  it("goes below api_url, with and without a slash at its end", function()
    for _, ending in ipairs({ "", "/", "//" }) do
      sandbox:reset()
      assert.is_string(client_with({ api_url = sandbox.url .. ending }):token())
      assert.are.equal("/oauth2/token", sandbox:log(1).entries[1].path)
    end
  end)
end)

describe("default_lifetime", function()
  local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)

  it("is how long a token lives when the server does not say", function()
    fixture.sandbox:faults({ kind = "transform", remove = { "expires_in", "expires" } })
    local client = fixture:client({ default_lifetime = 1234 })
    assert.is_string(client:token())
    local left = client:status().expires_in
    assert.is_true(left > 1200 and left <= 1234)
  end)
end)

describe("what is loaded later elsewhere", function()
  it("can be loaded early", function()
    local out = helper.run_lua([[
      require("lucidauth.early")
      package.path, package.cpath = "", ""
      local client = require("lucidauth").new({
        client_id = "c", client_secret = "s", storage = { load = print, save = print } })
      local maps = io.open("/proc/self/maps"):read("*a")
      io.write(tostring(maps:find("libcurl", 1, true) ~= nil), " ", client:metrics() and "works")
      io.write(" ", (select(3, client:store({ print }))))
    ]])
    assert.are.equal("true works config", out)
  end)

  it("is all that there is, but for nginx and the sandbox", function()
    local out = helper.run_lua([[
      require("lucidauth.early")
      for name in pairs(package.loaded) do
        print(name)
      end
    ]])
    for part in helper.shell("ls lua/lucidauth"):gmatch("(%l+)%.lua\n") do
      local is_loaded = contains("\n" .. out, "\nlucidauth." .. part .. "\n")
      assert.is_true(is_loaded or part == "nginx" or part == "sandbox", part)
    end
  end)
end)
