-- Secrets stay where they belong: not in messages, events, status, tracebacks
-- or output, not in any command line, and not in memory once they are used.

local mime = require("mime")

local codec = require("lucidauth.sandbox.codec")
local attempt = require("spec.attempt")
local helper = require("spec.helper")
local parallel = require("spec.parallel")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local quote = helper.quote
local holds, text_of = attempt.holds, helper.text_of

-- With everything that encodings change.
local CLIENT_SECRET = "Zs3/+=%&\"\\~ Kd07c41b95e28fa6"
local CONFIGURED = "oauth2-r-Q7/+=%&\"\\~_48ba1c90d7e65f23"

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each,
  { client_secret = CLIENT_SECRET })
local sandbox = fixture.sandbox

local secrets

-- Many of them wait for the flow's pauses.
local it = parallel.deal(3, it, teardown, function(why)
  pending(why)
end)

-- No part of a secret that helps to guess it.
local TELLING = 12

local function secret_in(text)
  for name, secret in pairs(secrets) do
    for from = 1, #secret - TELLING + 1 do
      if text:find(secret:sub(from, from + TELLING - 1), 1, true) then
        return name
      end
    end
  end
end

local function assert_silent(text)
  assert.are.equal("string", type(text))
  assert.is_nil(secret_in(text), text)
end

local function write_record(left)
  local record = fixture:store(left)
  secrets.stored_access, secrets.stored_refresh = record.access_token, record.refresh_token
  return record
end

-- A call that must fail, and everything that it tells; returns the message.
local function failing_call(options)
  local client, events = attempt.client(sandbox, helper.merge(
    { storage = fixture.path, refresh_token = CONFIGURED, timeout = 1 }, options))
  local token, message, code = client:token()
  local status = client:status()
  client:close()
  assert.is_nil(token)
  assert.are.equal("string", type(code))
  assert_silent(message)
  assert_silent(text_of(events))
  assert_silent(text_of(status))
  assert_silent(tostring(client))
  return message
end

before_each(function()
  secrets = { client_secret = CLIENT_SECRET, configured = CONFIGURED }
end)

-- ---- what the server sends back ----

local function percent(text, pattern)
  return (text:gsub(pattern, function(byte)
    return ("%%%02x"):format(byte:byte())
  end))
end

local forms = {
  ["as it is"] = function(secret)
    return secret
  end,
  ["in a sentence"] = function(secret)
    return "no such thing: '" .. secret .. "', sorry"
  end,
  ["percent-encoded"] = function(secret)
    return percent(secret, "%W")
  end,
  ["percent-encoded to the last byte"] = function(secret)
    return percent(secret, "."):upper()
  end,
  ["as JSON in a string"] = function(secret)
    return codec.encode_json({ token = secret })
  end,
  ["escaped byte by byte"] = function(secret)
    return (secret:gsub(".", function(byte)
      return ("\\u%04x"):format(byte:byte())
    end))
  end,
  ["cut off"] = function(secret)
    return secret:sub(1, 20) .. "..."
  end,
  ["with line breaks in between"] = function(secret)
    return (secret:gsub("....", "%0\r\n"))
  end,
  ["several times"] = function(secret)
    return (secret .. " "):rep(5)
  end,
}

local function answer(status, body, headers)
  return { { kind = "answer", status = status, body = body, headers = headers } }
end

local places = {
  ["a refusal's description"] = function(text)
    return answer(400, { error = "invalid_scope", error_description = text })
  end,
  ["a refusal's name"] = function(text)
    return answer(400, { error = text })
  end,
  ["a refusal of an unknown kind"] = function(text)
    return answer(400, { error = { reason = { text } } })
  end,
  ["the API's kind of error"] = function(text)
    return answer(404, { code = text, message = text })
  end,
  ["a success that is none"] = function(text)
    return answer(200, { error = "access_denied", error_description = text })
  end,
  ["a refusal of the client"] = function(text)
    return answer(403, { error = "invalid_client", error_description = text })
  end,
  ["a redirect"] = function(text)
    return answer(302, "", { Location = "https://" .. text:gsub("%c", "") .. ".example/" })
  end,
  ["a page"] = function(text)
    return answer(400, "<html>" .. text .. "</html>", { ["Content-Type"] = "text/html" })
  end,
  ["a server error"] = function(text)
    return { { kind = "answer", status = 500, times = "always",
      body = { error = text, error_description = text } } }
  end,
  ["introspection"] = function(text)
    return {
      { kind = "answer", status = 500 },
      { kind = "answer", endpoint = "introspect", status = 400, times = "always",
        body = { error = "invalid_request", error_description = text } },
    }
  end,
}

describe("a server that echoes secrets has none of them in our messages:", function()
  for place, faults_with in helper.sorted(places) do
    it(place, function()
      write_record(-10)
      for form, encode in pairs(forms) do
        for name, secret in pairs(secrets) do
          sandbox:clear_faults()
          sandbox:faults(faults_with(encode(secret)))
          tokens.write(fixture.path, tokens.record({
            access_token = secrets.stored_access, refresh_token = secrets.stored_refresh,
          }, -10))
          assert(failing_call(), form .. " " .. name)
        end
      end
    end)
  end

  it("where the message would cut them", function()
    write_record(-10)
    for length = 80, 125 do
      sandbox:faults(answer(400, { error = "invalid_request",
        error_description = ("x "):rep(length):sub(-length) .. secrets.stored_refresh }))
      assert.is_true(holds(failing_call(), { length < 98 and "is left out" or "x x" }))
    end
  end)

  it("those that it has issued just now", function()
    for _, set in ipairs({
      { token_type = "NEW" },
      { token_type = "NEW", error_description = "NEW", error = "NEW" },
    }) do
      write_record(-10)
      local new = "oauth2-a-5d1e7f3a9c824b60"
      for name in pairs(set) do
        set[name] = new
      end
      set.access_token, secrets.issued = new, new
      sandbox:faults({ kind = "transform", set = set })
      assert.is_true(holds(failing_call(), { "its text is left out" }))
    end
  end)

  it("the header that the client names itself with", function()
    write_record(-10)
    local pair = percent("sandbox-client:" .. CLIENT_SECRET, "[^%w:~_.-]"):gsub("%%%x%x",
      string.upper)
    secrets.authorization = (mime.b64(pair))
    sandbox:faults(answer(400, { error = "invalid_request",
      error_description = "Authorization: Basic " .. secrets.authorization }))
    failing_call({ token_request = "basic" })
    local sent = "Basic " .. secrets.authorization
    local status = helper.http_form(sandbox.url .. "/oauth2/token/introspect",
      { token = "any" }, { authorization = sent })
    assert.are.equal(200, status)
  end)

  it("and a token that still lives is served without telling", function()
    local record = write_record(60)
    sandbox:faults(answer(400, { error = "invalid_request",
      error_description = record.refresh_token }))
    local client, events = attempt.client(sandbox, { storage = fixture.path })
    assert.are.equal(record.access_token, client:token())
    assert.are.equal("refresh_failed", attempt.names(events))
    assert_silent(text_of(events))
    assert_silent(text_of(client:status()))
    client:close()
  end)
end)

-- ---- what a storage of the program's own says ----

describe("a storage in Lua that", function()
  local ODD_TOKEN = "oauth2-r-a/b+c==%d.e*f(g)[h]-5b0c7a91"

  -- Keeps JSON, as a database would, and fails with it at one step.
  local function storage_with(failing)
    local kept = codec.encode_json(tokens.record({
      access_token = "oauth2-a-stored-0a1b2c3d4e5f", refresh_token = ODD_TOKEN,
    }, -10))
    secrets.access, secrets.refresh = "oauth2-a-stored-0a1b2c3d4e5f", ODD_TOKEN
    local storage = {
      load = function()
        return codec.decode_json(kept)
      end,
      save = function(_, record)
        kept = codec.encode_json(record)
        return true
      end,
      lock = function() return true end,
      unlock = function() end,
    }
    local whole = storage[failing.step]
    storage[failing.step] = function(account, record)
      return failing.how(record and codec.encode_json(record) or kept, function()
        return whole(account, record)
      end)
    end
    return storage
  end

  local ways = {
    ["raises a text"] = function(text)
      error("INSERT failed: " .. text)
    end,
    ["raises a text with slashes escaped"] = function(text)
      error("INSERT failed: " .. text:gsub("/", "\\/"), 0)
    end,
    ["raises an object that tells all"] = function(text)
      error(setmetatable({}, { __tostring = function()
        return "constraint violated: " .. text
      end }))
    end,
    ["raises a table"] = function(text)
      error({ record = text })
    end,
    ["returns nil and a reason"] = function(text)
      return nil, "cannot do it: " .. text
    end,
    ["returns the record where a reason belongs"] = function(text)
      return false, codec.decode_json(text)
    end,
  }

  for name, how in helper.sorted(ways) do
    for _, step in ipairs({ "load", "save", "lock" }) do
      it(name .. " in " .. step .. " does not tell it through us", function()
        local message = failing_call({ storage = storage_with({ step = step, how = how }) })
        assert.is_true(holds(message, { "storage's function " .. step .. " failed" }), message)
        assert.are.equal(0, sandbox:counts().token_requests)
      end)
    end
  end

  it("has stored a token under no name that tells", function()
    local message = failing_call({ storage = storage_with({ step = "save", how = function()
      error("row (default, " .. ODD_TOKEN .. ") exists")
    end }) })
    assert.is_true(holds(message, { "exists" }), message)
  end)
end)

-- ---- what is wrong in the program ----

describe("a program's own mistake has no secret in its error:", function()
  local SECRET = "ohmy-5b0c7a91d2e34f68"

  before_each(function()
    secrets = { mistaken = SECRET }
  end)

  for name, options in helper.sorted({
    ["a secret that is a table"] = { client_secret = { SECRET } },
    ["a secret with a NUL"] = { client_secret = SECRET .. "\0" },
    ["a secret with a line break"] = { client_secret = SECRET .. "\n" },
    ["a refresh token with a line break"] = { refresh_token = SECRET .. "\r\n" },
    ["a misspelt option"] = { client_secrte = SECRET },
    ["an option without a name"] = { SECRET },
    ["an option of the wrong type"] = { timeout = SECRET },
    ["an option that is a choice"] = { token_request = SECRET },
    ["a parameter in a list"] = { token_parameters = { SECRET } },
    ["a parameter as a text"] = { token_parameters = SECRET },
    ["a parameter that is a table"] = { token_parameters = { audience = { SECRET } } },
    ["a parameter with a reserved name"] = { token_parameters = { client_id = SECRET } },
    ["a parameter's name that is none"] = { token_parameters = { ["a " .. SECRET] = "x" } },
    ["a URL with a password"] = { api_url = "https://user:" .. SECRET .. "@api.example" },
    ["a URL with a fragment"] = { token_url = "https://api.example/#" .. SECRET },
    ["a URL with a space"] = { token_url = "https://api.example/? " .. SECRET },
    ["a storage's field"] = { storage = { load = SECRET, save = SECRET } },
  }) do
    it(name, function()
      local ok, trace = xpcall(function()
        return lucid.new(options)
      end, function(message)
        return debug.traceback(tostring(message))
      end)
      assert.is_false(ok)
      assert_silent(trace)
    end)
  end

  it("all options as one text", function()
    local ok, message = pcall(lucid.configure, SECRET)
    assert.is_false(ok)
    assert_silent(message)
  end)

  it("a client that is closed", function()
    local client = lucid.new({ client_secret = SECRET, storage = { type = "memory" } })
    client:close()
    local ok, message = pcall(client.token, client)
    assert.is_false(ok)
    assert_silent(tostring(message))
    assert_silent(tostring(client))
  end)
end)

describe("a client", function()
  it("has no secret in any table that a program could print", function()
    write_record(1000)
    local client = attempt.client(sandbox, { storage = fixture.path, refresh_token = CONFIGURED })
    assert(client:token())
    local seen = {}
    local function walk(value)
      if type(value) == "string" then
        assert_silent(value)
      elseif type(value) == "table" and not seen[value] then
        seen[value] = true
        for name, item in pairs(value) do
          walk(name)
          walk(item)
        end
        walk(debug.getmetatable(value))
      end
    end
    walk(client)
    walk(lucid)
    assert.is_true(next(seen) ~= nil)
    client:close()
  end)
end)

-- ---- what is printed, and what others see ----

-- The variables come by a file, lest they stand in a command line of the test.
local function write_env(changes)
  local env = helper.merge(fixture:env({ LUCID_REFRESH_TOKEN = CONFIGURED }), changes)
  local lines = {}
  for name, value in pairs(env) do
    lines[#lines + 1] = ("export %s=%s\n"):format(name, quote(value))
  end
  local file = helper.tmpdir() .. "/env"
  helper.write_file(file, table.concat(lines))
  return file
end

describe("a failing program prints no secret:", function()
  local programs = {
    ["one that asserts"] = [[assert(require("lucidauth").token())]],
    ["one that prints"] = [[print(require("lucidauth").token()) os.exit(1)]],
    ["one with a traceback"] = [[
      xpcall(function() assert(require("lucidauth").refresh()) end, function(message)
        io.stderr:write(debug.traceback(message, 1), "\n")
      end)
      os.exit(1)
    ]],
    ["one with a handler that fails"] = [[
      local lucid = require("lucidauth")
      lucid.configure({ on_event = function(event) error(event) end })
      lucid.configure({ on_event = function(event) error(event.message) end })
      assert(lucid.token())
    ]],
    ["one that fails in a coroutine"] = [[
      local lucid = require("lucidauth")
      assert(coroutine.resume(coroutine.create(function() assert(lucid.token()) end)))
    ]],
  }

  for name, program in helper.sorted(programs) do
    it(name, function()
      local record = write_record(-10)
      sandbox:faults({ kind = "answer", status = 400, times = "always", body = {
        error = "invalid_request",
        error_description = record.refresh_token .. " " .. CLIENT_SECRET,
      } })
      local out, err, status = helper.run((". %s; exec %s -e %s"):format(
        quote(write_env()), quote(helper.interpreter), quote(program)))
      assert.are_not.equal(0, status)
      assert.is_true(holds(out .. err, { "its text is left out" }), out .. err)
      assert_silent(out)
      assert_silent(err)
    end)
  end
end)

-- ---- a process that waits where it is told to, to be looked into ----

-- `program` may call pause(text), which is heard here: it stops until it is told
-- to go on.
local function start_paused(program, env_file)
  local path = helper.tmpdir() .. "/program.lua"
  helper.write_file(path, [[
    local function pause(text)
      io.write((tostring(text):gsub("%c", " ")), "\n")
      io.flush()
      io.read("*l")
    end
  ]] .. program)
  local child = helper.start_partner((". %s; exec %s %s"):format(quote(env_file),
    quote(helper.interpreter), quote(path)))
  finally(function()
    child:stop("KILL")
  end)
  return child
end

local function proc(pid, name)
  return helper.read_file("/proc/" .. pid .. "/" .. name) or ""
end

describe("while a refresh is under way", function()
  -- Every process that the first one has started, itself first.
  local function family(first)
    local parents, pids = {}, {}
    for pid in helper.run("ls /proc"):gmatch("%d+") do
      parents[pid] = proc(pid, "stat"):match("%) %a (%d+)")
    end
    for pid in pairs(parents) do
      local ancestor = pid
      while ancestor and ancestor ~= tostring(first) do
        ancestor = parents[ancestor]
      end
      pids[#pids + 1] = ancestor and pid
    end
    return pids
  end

  local function wait_for_request()
    helper.eventually(function()
      return #sandbox:log().entries > 1
    end)
  end

  for _, style in ipairs({ "json", "form", "basic" }) do
    it("no command line and no open file's name has a secret: " .. style, function()
      write_record(-10)
      sandbox:faults({ kind = "hang" })
      local child = start_paused(([[
        require("lucidauth").new({ token_request = %q }):token()
      ]]):format(style), write_env())
      wait_for_request()
      local pids = family(child.pid)
      assert.are.same({ tostring(child.pid) }, pids)
      assert.is_true(holds(proc(child.pid, "cmdline"), { "program.lua" }))
      assert_silent(proc(child.pid, "cmdline"))
      assert_silent(proc(child.pid, "comm"))
      assert_silent(helper.run(("ls -l /proc/%d/fd /proc/%d/map_files"):format(child.pid,
        child.pid)))
    end)
  end

  it("a process that it starts inherits neither its lock nor its connection", function()
    write_record(-10)
    local child = start_paused([[
      local lucid = require("lucidauth")
      lucid.configure({ on_event = function()
        local pipe = io.popen("ls -l /proc/self/fd", "r")
        pause(pipe:read("*a"))
      end })
      lucid.token()
    ]], write_env())
    local listing = child:hear()
    assert.is_true(holds(listing, { "/proc/" }), listing)
    assert.is_false(holds(listing, { fixture.path }), listing)
    assert.is_false(holds(listing, { "socket:" }), listing)
  end)
end)

-- ---- memory ----

describe("memory", function()
  -- A piece of a token is found even where the head of it has been written over.
  local PIECE = 12

  local SECRET = "7f1c0e5ab3d94a6f82e1bb07c64d9a35"
  local OTHER = "e90b7d3c51fa48629c0de7fb1a3582c6"
  local MARK = "4c81d0f76be9a25307f8e4b1c95a6d23"

  local own

  setup(function()
    own = helper.start_sandbox({ client_secret = SECRET })
  end)

  teardown(function()
    own:stop()
  end)

  before_each(function()
    own:reset()
    secrets = {}
  end)

  local function pieces_of(token)
    local digits = token:match("%x+$")
    local pieces = {}
    for from = 1, #digits - PIECE + 1, PIECE do
      pieces[#pieces + 1] = digits:sub(from, from + PIECE - 1)
    end
    return pieces
  end

  -- Where the kernel has put the environment, which is not ours to wipe.
  local function environment_of(pid)
    local fields = {}
    for field in proc(pid, "stat"):match("%) (.*)"):gmatch("%S+") do
      fields[#fields + 1] = field
    end
    return tonumber(fields[48]), tonumber(fields[49])
  end

  -- How many pieces of each token there are in what the process can write to.
  local function count(pid, wanted)
    local found, first, last = {}, environment_of(pid)
    local memory = io.open("/proc/" .. pid .. "/mem", "rb")
    if not memory then
      pending("this system lets nobody look into a process of the same user")
    end
    for line in proc(pid, "maps"):gmatch("[^\n]+") do
      local from, to, mode = line:match("^(%x+)-(%x+) (%S+)")
      from, to = tonumber(from, 16), tonumber(to, 16)
      -- A sanitizer reserves terabytes, of its own.
      if mode:find("^rw") and to - from < 2 ^ 28 then
        memory:seek("set", from)
        local bytes = memory:read(to - from) or ""
        for name, token in pairs(wanted) do
          for _, piece in ipairs(pieces_of(token)) do
            local at = bytes:find(piece, 1, true)
            while at do
              local address = from + at - 1
              if address < first or address >= last then
                found[name] = (found[name] or 0) + 1
              end
              at = bytes:find(piece, at + 1, true)
            end
          end
        end
      end
    end
    memory:close()
    return found
  end

  local FROM_ENVIRONMENT = { secret = SECRET, other = OTHER }

  -- The secrets of a process that has done nothing yet are not ours either: a
  -- sanitizer keeps a copy of the environment. The start is not told by
  -- printing: when a function is called for the first time, the dynamic linker
  -- saves the registers on the stack, with what copying has left in them, and
  -- that is to happen after the refresh.
  local function start_child(program, env)
    local gate = helper.tmpdir() .. "/gate"
    helper.write_file(gate, "")
    local child = start_paused(('os.remove(%q) io.read("*l")\n'):format(gate) .. program, env)
    helper.eventually(function()
      return not helper.read_file(gate)
    end)
    child.before = count(child.pid, FROM_ENVIRONMENT)
    child:say()
    return child
  end

  -- How many pieces of each token have come since.
  local function copies(child, wanted)
    local found = count(child.pid, wanted)
    for name, before in pairs(child.before) do
      if found[name] == before then
        found[name] = nil
      end
    end
    return found
  end

  local function store(left)
    local record = tokens.record(tokens.pair(own), left)
    record.note = MARK
    tokens.write(fixture.path, record)
    return record
  end

  local function env_of(changes)
    return write_env(helper.merge(own.env, { LUCID_REFRESH_TOKEN = "" }, changes))
  end

  -- Pauses with the client in use, and again when it is closed.
  local PROGRAM = [[
    local client = require("lucidauth").new({ timeout = 2, token_request = %q })
    local token, message, code = client:token()
    pause(code or "token")
    client:close()
    pause("closed")
  ]]

  -- Looks into a process that has made one call, and again when it has closed
  -- its client. `used` is what the client goes on using until then.
  local function look(outcome, wanted, env, style, used)
    local child = start_child(PROGRAM:format(style or "json"), env)
    assert.are.equal(outcome, child:hear())
    local all = wanted()
    used = used or { secret = SECRET }
    for name, token in pairs(used) do
      all[name] = token
    end
    local found = copies(child, all)
    -- A secret in use is found, so one that is not found is not there.
    for name in pairs(used) do
      assert.is_true((found[name] or 0) > 0, name)
      found[name] = nil
    end
    assert.are.same({}, found)
    child:say()
    assert.are.equal("closed", child:hear())
    assert.are.same({}, copies(child, all))
  end

  for _, style in ipairs({ "json", "form", "basic" }) do
    it("holds no refresh token after a refresh: " .. style, function()
      local record = store(-10)
      own:faults({ kind = "transform", set = { answer_note = "5e" .. MARK:reverse() } })
      look("token", function()
        return {
          old = record.refresh_token, new = own:grant().refresh_token,
          old_access = record.access_token, stored = MARK, answer = MARK:reverse(),
        }
      end, env_of({ LUCID_REFRESH_TOKEN = "oauth2-r-" .. OTHER }), style, FROM_ENVIRONMENT)
      assert.are.equal(MARK, tokens.read(fixture.path).note)
    end)
  end

  it("holds no refresh token when the stored access token is good", function()
    local record = store(1000)
    look("token", function()
      return { refresh = record.refresh_token, stored = MARK }
    end, env_of())
  end)

  local function fault_case(name, outcome, fault)
    it("holds no refresh token after " .. name, function()
      local record = store(-10)
      own:faults(fault(record))
      look(outcome, function()
        return {
          old = record.refresh_token, new = own:grant().refresh_token, stored = MARK,
          answer = MARK:reverse(),
        }
      end, env_of())
    end)
  end

  fault_case("an answer in a form", "token", function()
    return { kind = "transform", encoding = "form", set = { note = MARK:reverse() } }
  end)

  fault_case("an answer without an access token", "bad_response", function()
    return { kind = "transform", remove = { "access_token" },
      set = { answer_note = MARK:reverse() } }
  end)

  fault_case("an answer that was cut off", "lost_rotation", function()
    return { kind = "half" }
  end)

  fault_case("an answer that is no JSON", "lost_rotation", function(record)
    return { kind = "answer", when = "after", status = 200,
      body = ('{"x":"%s","refresh_token":"%s",}'):format(MARK:reverse(), record.refresh_token) }
  end)

  fault_case("an answer without end", "lost_rotation", function()
    return { kind = "flood" }
  end)

  fault_case("a refusal that echoes it", "invalid_grant", function(record)
    return { kind = "answer", status = 400, body = { error = "invalid_grant",
      error_description = record.refresh_token, note = MARK:reverse() } }
  end)

  fault_case("a server that hangs", "timeout", function()
    return { kind = "hang", times = "always" }
  end)

  it("holds no refresh token when nobody answers", function()
    local record = store(-10)
    local url, taken = helper.dead_url()
    look("network", function()
      return { old = record.refresh_token, stored = MARK }
    end, env_of({ LUCID_API_URL = url }))
    taken:close()
  end)

  for name, damage in helper.sorted({
    ["cut off"] = function(text)
      return text:sub(1, -2)
    end,
    ["in an array"] = function(text)
      return "[" .. text .. "]"
    end,
    -- at its end it may be what was preallocated
    ["with a NUL in it"] = function(text)
      return (text:gsub("}%s*$", "\0}"))
    end,
    ["with more behind it"] = function(text)
      return text .. text
    end,
  }) do
    it("holds no refresh token when the record is " .. name, function()
      local record = store(-10)
      helper.write_file(fixture.path, damage(helper.read_file(fixture.path)))
      look("storage", function()
        return { old = record.refresh_token, access = record.access_token, stored = MARK }
      end, env_of())
    end)
  end

  it("holds nothing of a storage in memory when it is closed", function()
    local child = start_child([[
      local client = require("lucidauth").new({ storage = { type = "memory" } })
      client:token()
      pause("token")
      client:close()
      pause("closed")
    ]], env_of({ LUCID_REFRESH_TOKEN = own:grant().refresh_token }))
    child:hear()
    local wanted = { new = own:grant().refresh_token, secret = SECRET }
    assert.is_true((copies(child, wanted).new or 0) > 0)
    child:say()
    child:hear()
    assert.are.same({}, copies(child, wanted))
  end)

  it("holds nothing but its own token of a client that was collected", function()
    local record = store(-10)
    local child = start_child([[
      require("lucidauth").new({}):token()
      collectgarbage()
      collectgarbage()
      pause("collected")
    ]], env_of())
    child:hear()
    assert.are.same({}, copies(child, {
      old = record.refresh_token, new = own:grant().refresh_token, secret = SECRET,
    }))
  end)
end)
