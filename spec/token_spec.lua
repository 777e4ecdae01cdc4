-- The life of a token: obtained, served, refreshed, rejected, replaced.

local socket = require("socket")

local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local sandbox, path, clients, events

local function posts()
  return sandbox:counts().token_requests
end

local function contains(text, part)
  return text:find(part, 1, true) ~= nil
end

-- Options that point at the sandbox, and note every event.
local function options_with(changes)
  local options = {
    api_url = sandbox.url,
    client_id = sandbox.client_id,
    client_secret = sandbox.client_secret,
    refresh_token = sandbox.refresh_token,
    storage = path,
    on_event = function(event)
      events[#events + 1] = event
    end,
  }
  for name, value in pairs(changes or {}) do
    options[name] = value
  end
  return options
end

local function client_with(changes)
  local client = lucid.new(options_with(changes))
  clients[#clients + 1] = client
  return client
end

local function names_of_events()
  local names = {}
  for i, event in ipairs(events) do
    names[i] = event.name
  end
  return table.concat(names, " ")
end

-- The refresh token may be written into a message by mistake; it never may.
local function assert_no_secret(text)
  for _, grant in ipairs(sandbox:grants()) do
    assert.is_false(contains(text, grant.refresh_token))
    assert.is_false(grant.access_token ~= nil and contains(text, grant.access_token))
  end
  assert.is_false(contains(text, sandbox.refresh_token))
  assert.is_false(contains(text, sandbox.client_secret))
end

local function assert_failure(code, token, message, got)
  assert.is_nil(token)
  assert.are.equal("string", type(message))
  assert.are.equal(code, got)
  assert_no_secret(message)
end

-- A port of this machine on which nobody answers, kept from others.
local function dead_port()
  local taken = assert(socket.tcp4())
  assert(taken:bind("127.0.0.1", 0))
  local _, port = taken:getsockname()
  return tonumber(port), taken
end

-- Something between a client and the sandbox, on a free port.
local function start_socat(listen, connect)
  local process = helper.start({ "socat", "-d", "-d", listen, connect })
  repeat
    local said = helper.read_file(process.folder .. "/err") or ""
    process.port = said:match("listening on AF=2 127%.0%.0%.1:(%d+)")
  until process.port
  return process
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
  clients, events = {}, {}
end)

after_each(function()
  for _, client in ipairs(clients) do
    client:close()
  end
  lucid.close()
end)

describe("a token", function()
  it("comes from the configured refresh token, and works", function()
    local token = assert(client_with():token())
    assert.are.equal(sandbox:grant().access_token, token)
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(1, posts())
    assert.are.equal("refreshed", names_of_events())
  end)

  it("is one value, the token and nothing else", function()
    local client = client_with()
    assert.are.equal(1, select("#", client:token()))
    assert.are.equal(1, select("#", client:token()))
    assert.are.equal(1, select("#", client:refresh()))
    assert.are.equal(1, select("#", client:authorization()))
  end)

  it("is served from memory", function()
    local client = client_with()
    local token = assert(client:token())
    for _ = 1, 1000 do
      assert(token == client:token())
    end
    assert.are.equal(1, posts())
  end)

  it("is there for the next client, without a request", function()
    local token = assert(client_with():token())
    assert.are.equal(token, client_with():token())
    assert.are.equal(1, posts())
  end)

  it("comes as the value of the Authorization header", function()
    local client = client_with()
    local authorization = assert(client:authorization())
    assert.are.equal("Bearer " .. client:token(), authorization)
    assert.are.equal(1, posts())
  end)

  it("stands in the file with every field of the answer", function()
    local token = assert(client_with():token())
    local record, grant = tokens.read(path), sandbox:grant()
    assert.are.equal(token, record.access_token)
    assert.are.equal(grant.refresh_token, record.refresh_token)
    assert.are.equal(3600, record.expires_in)
    assert.are.equal("bearer", record.token_type)
    assert.are.equal(grant.user_id, record.user_id)
    assert.are.equal(grant.scope, record.scope)
    assert.are.equal(sandbox.client_id, record.client_id)
    assert.is_nil(record.pending)
    assert.is_true(math.abs(record.expires_at - os.time() - 3600) < 60)
    local mode = helper.run("stat -c %a " .. helper.quote(path))
    assert.are.equal("600\n", mode)
  end)

  it("keeps fields of the file that it does not know", function()
    local record = tokens.record(tokens.pair(sandbox), -1)
    record.note = { by = "another program", list = { 1, { deep = "yes" } } }
    tokens.write(path, record)
    assert(client_with():token())
    assert.are.same(record.note, tokens.read(path).note)
  end)

  it("is refreshed when it has expired", function()
    local old = tokens.pair(sandbox)
    tokens.write(path, tokens.record(old, -1))
    local before = posts()
    local token = assert(client_with():token())
    assert.are_not.equal(old.access_token, token)
    assert.are.equal(before + 1, posts())
    assert.is_true(tokens.works(sandbox, token))
  end)

  it("is served as long as the file says", function()
    local old = tokens.pair(sandbox)
    tokens.write(path, tokens.record(old, 1000))
    local before = posts()
    assert.are.equal(old.access_token, client_with():token())
    assert.are.equal(before, posts())
  end)

  it("is not served when the clock was set back behind its issue", function()
    local old = tokens.pair(sandbox)
    tokens.write(path, tokens.record(old, 7200))
    local token = assert(client_with():token())
    assert.are_not.equal(old.access_token, token)
  end)
end)

describe("refresh_before", function()
  local function refreshes_with(left, lifetime, before)
    local old = tokens.pair(sandbox)
    tokens.write(path, tokens.record(old, left, lifetime))
    local token = assert(client_with({ refresh_before = before }):token())
    return token ~= old.access_token
  end

  it("is 300 seconds", function()
    assert.is_true(refreshes_with(290, 3600))
    assert.is_false(refreshes_with(330, 3600))
  end)

  it("may be another", function()
    assert.is_true(refreshes_with(590, 3600, 600))
    assert.is_false(refreshes_with(630, 3600, 600))
    assert.is_false(refreshes_with(30, 3600, 0))
    assert.is_true(refreshes_with(-1, 3600, 0))
  end)

  it("is at most a quarter of the lifetime", function()
    assert.is_true(refreshes_with(90, 400))
    assert.is_false(refreshes_with(130, 400))
    assert.is_false(refreshes_with(130, 400, 1e9))
  end)

  it("of a short-lived token is no refresh at every call", function()
    sandbox:settings({ lifetime = 100 })
    local client = client_with()
    local token = assert(client:token())
    assert.are.equal(token, client:token())
    assert.are.equal(token, client_with():token())
    assert.are.equal(1, posts())
  end)
end)

describe("refresh()", function()
  it("brings a new token whatever the expiry", function()
    local client = client_with()
    local old = assert(client:token())
    local new = assert(client:refresh())
    assert.are_not.equal(old, new)
    assert.are.equal(new, client:token())
    assert.is_true(tokens.works(sandbox, new))
    assert.is_false(tokens.works(sandbox, old))
    assert.are.equal(2, posts())
  end)

  it("fails loudly while the present token goes on being served", function()
    local client = client_with()
    local token = assert(client:token())
    sandbox:faults({
      kind = "answer", status = 429, headers = { ["Retry-After"] = "3600" },
    })
    assert_failure("rate_limited", client:refresh())
    assert.are.equal(token, client:token())
  end)
end)

describe("reject()", function()
  it("brings another token at the next call", function()
    local client = client_with()
    local old = assert(client:token())
    assert.is_true(client:reject(old))
    local new = assert(client:token())
    assert.are_not.equal(old, new)
    assert.are.equal(2, posts())
    assert.are.equal("refreshed rejected refreshed", names_of_events())
  end)

  it("does nothing the second time", function()
    local client = client_with()
    local old = assert(client:token())
    assert.is_true(client:reject(old))
    assert.is_true(client:reject(old))
    local new = assert(client:token())
    assert.is_true(client:reject(old))
    assert.are.equal(new, client:token())
    assert.are.equal(2, posts())
    assert.are.equal("refreshed rejected refreshed", names_of_events())
  end)

  it("of a token that is not in use changes nothing", function()
    local client = client_with()
    local token = assert(client:token())
    for i = 1, 10 do
      assert.is_true(client:reject("some other token " .. i))
    end
    assert.are.equal(token, client:token())
    assert.are.equal(1, posts())
  end)

  it("adopts the newer token of another process, without a request", function()
    local one, other = client_with(), client_with({ on_event = function() end })
    local old = assert(one:token())
    local new = assert(other:refresh())
    local before = posts()
    events = {}
    one:reject(old)
    assert.are.equal(new, one:token())
    assert.are.equal(before, posts())
    assert.are.equal("rejected adopted", names_of_events())
  end)

  it("holds for the storage, too: the token is not taken from there", function()
    local client = client_with()
    local old = assert(client:token())
    local other = client_with()
    other:reject(old)
    local new = assert(other:token())
    assert.are_not.equal(old, new)
    assert.is_true(tokens.works(sandbox, new))
  end)

  it("never hands the token out again, even while a refresh fails", function()
    local client = client_with()
    local old = assert(client:token())
    client:reject(old)
    sandbox:faults({
      kind = "answer", status = 429, times = "always",
      headers = { ["Retry-After"] = "3600" },
    })
    assert_failure("rate_limited", client:token())
    assert_failure("rate_limited", client:token())
    assert.are.equal(2, posts())
  end)

  it("says so when the server issues the very same token again", function()
    local client = client_with()
    local old = assert(client:token())
    sandbox:faults({ kind = "transform", set = { access_token = old } })
    client:reject(old)
    assert_failure("bad_response", client:token())
    assert.are.equal(sandbox:grant().refresh_token, tokens.read(path).refresh_token)
    assert.is_true(tokens.works(sandbox, (assert(client:token()))))
  end)

  it("takes a token and nothing else", function()
    local client = client_with()
    assert.has_error(function()
      client:reject(nil)
    end)
    assert.has_error(function()
      client:reject({})
    end)
  end)
end)

describe("status()", function()
  local function text_of(value)
    if type(value) ~= "table" then
      return tostring(value)
    end
    local parts = {}
    for name, item in pairs(value) do
      parts[#parts + 1] = tostring(name) .. "=" .. text_of(item)
    end
    return table.concat(parts, " ")
  end

  it("is empty before the first call, and asks nobody", function()
    local status = client_with():status()
    assert.are.equal("empty", status.state)
    assert.are.equal(0, status.expires_in)
    assert.is_false(status.unsaved)
    assert.is_nil(status.last_refresh)
    assert.is_nil(status.last_error)
    assert.is_nil(status.retry_in)
    assert.are.equal(0, sandbox:counts().requests)
    assert.is_nil(helper.read_file(path))
  end)

  it("tells of the token in use, and no secret", function()
    local client = client_with()
    assert(client:token())
    local status = client:status()
    assert.are.equal("ready", status.state)
    assert.is_true(status.expires_in > 3500 and status.expires_in <= 3600)
    assert.is_true(math.abs(status.last_refresh - os.time()) < 60)
    assert.is_false(status.unsaved)
    assert.is_nil(status.last_error)
    assert_no_secret(text_of(status))
  end)

  it("has no refresh time when the token came from the file", function()
    tokens.write(path, tokens.record(tokens.pair(sandbox), 1000))
    local client = client_with()
    assert(client:token())
    local status = client:status()
    assert.are.equal("ready", status.state)
    assert.is_true(status.expires_in > 900 and status.expires_in <= 1000)
    assert.is_nil(status.last_refresh)
  end)

  it("is empty after the token in use was rejected", function()
    local client = client_with()
    client:reject((assert(client:token())))
    local status = client:status()
    assert.are.equal("empty", status.state)
    assert.are.equal(0, status.expires_in)
  end)

  it("tells of the last failure until a success follows", function()
    sandbox:faults({
      kind = "answer", status = 429, headers = { ["Retry-After"] = "3000" },
    })
    local client = client_with()
    local _, message, code = client:token()
    local status = client:status()
    assert.are.equal("failing", status.state)
    assert.are.same({ code = code, message = message }, status.last_error)
    assert.is_true(status.retry_in > 2900 and status.retry_in <= 3000)
    assert_no_secret(text_of(status))
    assert(client:refresh())
    status = client:status()
    assert.are.equal("ready", status.state)
    assert.is_nil(status.last_error)
    assert.is_nil(status.retry_in)
  end)
end)

describe("a failing refresh", function()
  -- A token that is due for a refresh, but lives for another minute.
  local function write_aging()
    local old = tokens.pair(sandbox)
    tokens.write(path, tokens.record(old, 60))
    return old
  end

  it("leaves the token in use as long as it lives", function()
    local old = write_aging()
    local port, taken = dead_port()
    local client = client_with({ api_url = "http://127.0.0.1:" .. port })
    assert.are.equal(old.access_token, client:token())
    taken:close()
    assert.are.equal("refresh_failed", names_of_events())
    assert.are.equal("network", events[1].code)
    assert_no_secret(events[1].message)
    assert.are.equal("network", client:status().last_error.code)
    local record = tokens.read(path)
    assert.are.equal(old.refresh_token, record.refresh_token)
    assert.is_nil(record.pending)
  end)

  it("of an expired token is told, and loses nothing", function()
    local old = tokens.pair(sandbox)
    tokens.write(path, tokens.record(old, -1))
    local port, taken = dead_port()
    local client =
      client_with({ api_url = "http://127.0.0.1:" .. port, timeout = 1 })
    local token, message, code = client:token()
    taken:close()
    assert_failure("network", token, message, code)
    assert.is_true(contains(message, "LUCID_API_URL"))
    assert.is_true(contains(message, "untouched"))
    local record = tokens.read(path)
    assert.are.equal(old.refresh_token, record.refresh_token)
    assert.are.equal(old.access_token, record.access_token)
    assert.is_nil(record.pending)
    assert.is_true(tokens.works(sandbox, (assert(client_with():token()))))
  end)

  it("is not repeated at every call while the server asks to wait", function()
    local old = write_aging()
    sandbox:faults({
      kind = "answer", status = 503, times = "always",
      headers = { ["Retry-After"] = "3600" },
    })
    local before = posts()
    local client = client_with()
    for _ = 1, 1000 do
      assert(old.access_token == client:token())
    end
    assert.are.equal(before + 1, posts())
    assert.are.equal("refresh_failed", names_of_events())
    assert.are.equal("server_error", events[1].code)
  end)

  it("is not repeated at every call that gets no token, either", function()
    sandbox:faults({
      kind = "answer", status = 503, times = "always",
      headers = { ["Retry-After"] = "3600" },
    })
    local client = client_with()
    local _, first = client:token()
    for _ = 1, 1000 do
      local token, message, code = client:token()
      assert(not token and message == first and code == "server_error")
    end
    assert.are.equal(1, posts())
  end)

  it("is tried again by refresh(), whatever the wait", function()
    sandbox:faults({
      kind = "answer", status = 503, headers = { ["Retry-After"] = "3600" },
    })
    local client = client_with()
    assert_failure("server_error", client:token())
    local token = assert(client:refresh())
    assert.are.equal(token, client:token())
    assert.are.equal(2, posts())
  end)

  it("is over when another process has refreshed", function()
    write_aging()
    sandbox:faults({
      kind = "answer", status = 503, headers = { ["Retry-After"] = "3600" },
    })
    local client = client_with()
    local old = assert(client:token())
    local new = assert(client_with():refresh())
    client:reject(old)
    assert.are.equal(new, client:token())
    assert.is_nil(client:status().last_error)
  end)

  it("is retried within one call until the server is back", function()
    sandbox:faults({ kind = "answer", status = 429, times = 2,
      headers = { ["Retry-After"] = "0" } })
    local token = assert(client_with():token())
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(3, posts())
    assert.are.equal(1, sandbox:counts().rotations)
  end)
end)

describe("client id and secret that the server does not take", function()
  it("are named, and nothing is spent", function()
    local client = client_with({ client_secret = "wrong-secret" })
    local token, message, code = client:token()
    assert_failure("invalid_client", token, message, code)
    assert.is_true(contains(message, "LUCID_CLIENT_SECRET"))
    assert.is_true(contains(message, "client_secret"))
    assert.is_false(contains(message, "wrong-secret"))
    assert.is_true(sandbox:grant().refresh_live)
    assert(client_with():token())
  end)
end)

describe("a dead grant", function()
  -- The file of a grant that was started from the sandbox's first refresh
  -- token, and that has ended since.
  local function write_dead()
    local client = client_with()
    assert(client:token())
    client:close()
    local record = tokens.read(path)
    sandbox:revoke_all("default")
    record.expires_at = os.time() - 1
    tokens.write(path, record)
    return record
  end

  it("asks for a new login, and its record stays", function()
    local record = write_dead()
    local before = posts()
    local client = client_with()
    local token, message, code = client:token()
    assert_failure("invalid_grant", token, message, code)
    assert.is_true(contains(message, "LUCID_REFRESH_TOKEN"))
    assert.is_true(contains(message, "refresh_token"))
    assert.are.equal(record.refresh_token, tokens.read(path).refresh_token)
    assert.is_nil(tokens.read(path).pending)
    assert.are.equal(before + 1, posts())
  end)

  it("is not asked for at every call", function()
    write_dead()
    sandbox:settings({ punish_reuse = false })
    local client = client_with()
    local before = posts()
    assert_failure("invalid_grant", client:token())
    assert_failure("invalid_grant", client:token())
    assert.are.equal(before + 1, posts())
  end)

  it("gives way to a new configured refresh token", function()
    write_dead()
    local login = sandbox:open_grant({ account = "again" })
    local client = client_with({ refresh_token = login.refresh_token })
    local token = assert(client:token())
    assert.are.equal(sandbox:grant("again").access_token, token)
    local record = tokens.read(path)
    assert.are.equal(sandbox:grant("again").refresh_token, record.refresh_token)
    assert.is_nil(record.pending)
    assert.are.equal(token, client_with():token())
  end)

  it("never spends the token that it was started from again", function()
    write_dead()
    assert_failure("invalid_grant", client_with():token())
    local spent = {}
    for _, entry in ipairs(sandbox:log().entries) do
      if entry.endpoint == "token" then
        assert.is_nil(spent[entry.token])
        spent[entry.token] = true
      end
    end
  end)
end)

describe("a configured refresh token", function()
  it("is not spent while a stored record is alive", function()
    tokens.write(path, tokens.record(tokens.pair(sandbox), -1))
    local login = sandbox:open_grant({ account = "again" })
    local token =
      assert(client_with({ refresh_token = login.refresh_token }):token())
    assert.are.equal(sandbox:grant().access_token, token)
    assert.are.equal(0, sandbox:grant("again").rotations)
  end)

  it("is refused when the server does not know it", function()
    local client = client_with({ refresh_token = "not-a-token" })
    local token, message, code = client:token()
    assert_failure("invalid_grant", token, message, code)
    assert.is_false(contains(message, "not-a-token"))
    assert.are.equal(1, posts())
  end)

  it("that was refused gives way to another one", function()
    local client = client_with({ refresh_token = "not-a-token" })
    assert_failure("invalid_grant", client:token())
    local token = assert(client_with():token())
    assert.is_true(tokens.works(sandbox, token))
  end)
end)

describe("events", function()
  it("name what happened, and to which account", function()
    local client = client_with()
    assert(client:token())
    assert.are.same({ name = "refreshed", account = "default" }, events[1])
  end)

  it("tell of a token that another process brought", function()
    local client = client_with()
    assert(client:token())
    local new = assert(client_with({ on_event = function() end }):refresh())
    events = {}
    -- With its name an account goes the slow way, which looks at the file.
    assert.are.equal(new, client:token("default"))
    assert.are.equal("adopted", names_of_events())
    assert.are.equal(2, posts())
  end)

  it("tell of a mended file mode", function()
    tokens.write(path, tokens.record(tokens.pair(sandbox), 1000))
    assert(os.execute("chmod 644 " .. helper.quote(path)))
    assert(client_with():token())
    assert.are.equal("repaired", names_of_events())
    assert.are.equal("600\n", (helper.run("stat -c %a " .. helper.quote(path))))
  end)

  it("may call the client", function()
    local client, inside
    client = client_with({
      on_event = function(event)
        inside = { event.name, client:token() }
      end,
    })
    local token = assert(client:token())
    assert.are.same({ "refreshed", token }, inside)
    assert.are.equal(1, posts())
  end)

  it("cost nothing when their handler fails", function()
    local out, err, status = helper.run_lua([[
      local lucid = require("lucidauth")
      lucid.configure({
        storage = { type = "memory" },
        on_event = function(event)
          error("handler of " .. event.name)
        end,
      })
      print(lucid.token())
    ]], tokens.env(sandbox.env))
    assert.are.equal(0, status)
    assert.are.equal(sandbox:grant().access_token .. "\n", out)
    assert.is_true(contains(err, "handler of refreshed"))
    assert_no_secret(err)
  end)
end)

describe("close()", function()
  it("may be called twice", function()
    local client = client_with()
    assert(client:token())
    assert.is_true(client:close())
    assert.is_true(client:close())
  end)

  it("leaves a client that no longer hands anything out", function()
    local client = client_with()
    assert(client:token())
    client:close()
    for _, name in ipairs({ "token", "refresh", "authorization", "status" }) do
      assert.has_error(function()
        client[name](client)
      end)
    end
  end)

  it("of the module makes room for a client from the environment", function()
    lucid.configure(options_with())
    assert(lucid.token())
    lucid.close()
    lucid.close()
    local other = helper.tmpdir() .. "/other.json"
    lucid.configure(options_with({ storage = other }))
    assert_failure("invalid_grant", lucid.token())
  end)

  it("saves what could not be saved before", function()
    local client = client_with()
    assert(client:token())
    -- A directory in the temporary file's place stops even root. It comes
    -- with the POST, when the mark has been saved already.
    local gate = start_socat("TCP-LISTEN:0,bind=127.0.0.1",
      ("SYSTEM:mkdir %s.tmp && exec socat - TCP\\:%s"):format(path,
        (sandbox.url:gsub("^http://", ""):gsub(":", "\\:"))))
    local gated = client_with({ api_url = "http://127.0.0.1:" .. gate.port })
    local token = assert(gated:refresh())
    gate:wait()
    assert.is_true(gated:status().unsaved)
    assert.is_true(contains(names_of_events(), "refreshed save_failed"))
    assert_no_secret(events[#events].message)
    assert.are.equal(token, gated:token())
    assert(os.execute("rmdir " .. helper.quote(path .. ".tmp")))
    gated:close()
    assert.are.equal("saved", events[#events].name)
    assert.are.equal(token, tokens.read(path).access_token)
    assert.are.equal(token, client_with():token())
  end)
end)

describe("clients", function()
  it("are as many as one likes, each with tokens of its own", function()
    local login = sandbox:open_grant({ account = "second" })
    local one = client_with()
    local other = client_with({
      refresh_token = login.refresh_token, storage = path .. ".second",
    })
    local first, second = assert(one:token()), assert(other:token())
    assert.are.equal(sandbox:grant().access_token, first)
    assert.are.equal(sandbox:grant("second").access_token, second)
    other:close()
    assert.are.equal(first, one:token())
  end)

  it("may keep their tokens in memory alone", function()
    local client = client_with({ storage = { type = "memory" } })
    local token = assert(client:token())
    assert.are.equal(token, client:token())
    local new = assert(client:refresh())
    assert.are_not.equal(token, new)
    assert.are.equal(new, client:token())
    assert.is_nil(helper.read_file(path))
  end)

  it("are collected when nobody needs them", function()
    local seen = setmetatable({ lucid.new(options_with()) }, { __mode = "v" })
    assert(seen[1]:token())
    collectgarbage()
    collectgarbage()
    assert.is_nil(seen[1])
  end)
end)

describe("configure()", function()
  it("sets up the functions of the module", function()
    assert.is_true(lucid.configure(options_with()))
    local token = assert(lucid.token())
    assert.are.equal(token, lucid.token())
    assert.are.equal("Bearer " .. token, lucid.authorization())
    assert.are.equal("ready", lucid.status().state)
    assert.is_true(lucid.reject(token))
    local new = assert(lucid.token())
    assert.are_not.equal(token, new)
    assert.are_not.equal(new, assert(lucid.refresh()))
    assert.are.equal(3, posts())
  end)

  it("may be called again: the second one counts", function()
    local login = sandbox:open_grant({ account = "second" })
    lucid.configure(options_with())
    local first = assert(lucid.token())
    lucid.configure(options_with({
      refresh_token = login.refresh_token, storage = path .. ".second",
    }))
    local second = assert(lucid.token())
    assert.are_not.equal(first, second)
    assert.are.equal(sandbox:grant("second").access_token, second)
    assert.are.equal(second, lucid.token())
  end)

  it("leaves the client as it was when it raises", function()
    lucid.configure(options_with())
    local token = assert(lucid.token())
    assert.has_error(function()
      lucid.configure(options_with({ timeout = "soon" }))
    end)
    assert.are.equal(token, lucid.token())
    assert.are.equal(1, posts())
  end)

  it("works for a token function that was taken before", function()
    local token_of = lucid.token
    lucid.configure(options_with())
    local token = assert(token_of())
    assert.are.equal(token, lucid.token())
    lucid.configure(options_with({ storage = { type = "memory" } }))
    assert_failure("invalid_grant", token_of())
  end)
end)

describe("the environment", function()
  local print_token = [[
    local token, message, code = require("lucidauth").token()
    print(token or code)
    print(message)
  ]]

  local function run_with(env, changes)
    env = tokens.env(env)
    for name, value in pairs(changes or {}) do
      env[name] = value
    end
    return helper.run_lua(print_token, env)
  end

  it("is enough", function()
    local env = tokens.env(sandbox.env)
    env.LUCID_TOKEN_FILE = path
    local out = helper.run_lua(print_token, env)
    assert.are.equal(sandbox:grant().access_token .. "\nnil\n", out)
    assert.are.equal(out, (helper.run_lua(print_token, env)))
    assert.are.equal(1, posts())
  end)

  it("without LUCID_TOKEN_FILE means token_info.json here", function()
    local folder = helper.tmpdir()
    local out = helper.run(("cd %s && exec %s -e %s"):format(helper.quote(folder),
      helper.interpreter, helper.quote(print_token)), tokens.env(sandbox.env))
    local token = sandbox:grant().access_token
    assert.are.equal(token .. "\nnil\n", out)
    assert.are.equal(token, tokens.read(folder .. "/token_info.json").access_token)
  end)

  it("gives way to options", function()
    local env = tokens.env(sandbox.env)
    env.LUCID_CLIENT_SECRET = "wrong"
    env.LUCID_TOKEN_FILE = "/nowhere/at/all.json"
    local out = helper.run_lua(([[
      print(require("lucidauth").new({
        client_secret = %q, storage = %q,
      }):token())
    ]]):format(sandbox.client_secret, path), env)
    assert.are.equal(sandbox:grant().access_token .. "\n", out)
  end)

  it("with an empty variable is as without it", function()
    local out = run_with(sandbox.env, { LUCID_REFRESH_TOKEN = "", LUCID_TOKEN_FILE = path })
    assert.is_true(contains(out, "config\n"))
    assert.is_true(contains(out, "LUCID_REFRESH_TOKEN"))
  end)

  it("may be completed while the program runs", function()
    local out = helper.run_lua(([[
      local lucid = require("lucidauth")
      local _, _, code = lucid.token()
      print(code)
      lucid.configure({ refresh_token = %q })
      print(lucid.token())
    ]]):format(sandbox.refresh_token), tokens.env({
      LUCID_API_URL = sandbox.url,
      LUCID_CLIENT_ID = sandbox.client_id,
      LUCID_CLIENT_SECRET = sandbox.client_secret,
      LUCID_TOKEN_FILE = path,
    }))
    assert.are.equal("config\n" .. sandbox:grant().access_token .. "\n", out)
  end)

  for name, variable in pairs({
    client_id = "LUCID_CLIENT_ID",
    client_secret = "LUCID_CLIENT_SECRET",
    refresh_token = "LUCID_REFRESH_TOKEN",
  }) do
    it("without " .. variable .. " names it and its option", function()
      local out = run_with(sandbox.env, { [variable] = false, LUCID_TOKEN_FILE = path })
      assert.are.equal("config", out:match("^[^\n]*"))
      assert.is_true(contains(out, variable))
      assert.is_true(contains(out, name))
      assert.are.equal(0, sandbox:counts().requests)
    end)
  end

  it("need not be set at all while the file's token is good", function()
    local pair = tokens.pair(sandbox)
    tokens.write(path, tokens.record(pair, 1000))
    local out = run_with({ LUCID_TOKEN_FILE = path })
    assert.are.equal(pair.access_token .. "\nnil\n", out)
  end)

  it("that cannot be used is a failure, not an error", function()
    local out = run_with(sandbox.env, {
      LUCID_API_URL = "http://api.example.invalid", LUCID_TOKEN_FILE = path,
    })
    assert.are.equal("config", out:match("^[^\n]*"))
    assert.is_true(contains(out, "LUCID_API_URL"))
    assert.is_true(contains(out, "https"))
    local secret = "first line\nsecond line"
    out = run_with(sandbox.env, { LUCID_CLIENT_SECRET = secret, LUCID_TOKEN_FILE = path })
    assert.are.equal("config", out:match("^[^\n]*"))
    assert.is_true(contains(out, "LUCID_CLIENT_SECRET"))
    assert.is_false(contains(out, "second line"))
  end)
end)

describe("a directory of accounts", function()
  it("has a file for each of them", function()
    local folder = helper.tmpdir()
    for _, name in ipairs({ "alice", "Bob/../x" }) do
      sandbox:open_grant({ account = name })
    end
    local client = client_with({ storage = { type = "file", directory = folder } })
    local default = assert(client:token())
    assert.are.equal(sandbox:grant().access_token, default)
    assert.are.equal(default, client:token("default"))
    local alice = tokens.pair(sandbox, "alice")
    tokens.write(folder .. "/alice.json", tokens.record(alice, 1000))
    assert.are.equal(alice.access_token, client:token("alice"))
    assert.are.equal("Bearer " .. alice.access_token, client:authorization("alice"))
    assert.are.equal(default, client:token())
    local new = assert(client:refresh("alice"))
    assert.are_not.equal(alice.access_token, new)
    assert.are.equal(new, client:token("alice"))
    assert.are.equal(new, tokens.read(folder .. "/alice.json").access_token)
    client:reject(new, "alice")
    assert.are.equal(default, client:token())
    assert.are.equal("empty", client:status("alice").state)
    assert.are.equal("ready", client:status().state)
    assert.are_not.equal(new, client:token("alice"))
    assert.are.equal("alice", events[#events].account)
  end)

  it("spends the configured refresh token once, for one account", function()
    local folder = helper.tmpdir()
    local client = client_with({ storage = { directory = folder } })
    local token = assert(client:token())
    local other, message, code = client:token("alice")
    assert_failure("config", other, message, code)
    assert.is_true(contains(message, "alice"))
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(1, posts())
  end)

  it("is what it takes to have several", function()
    local client = client_with()
    local token, message, code = client:token("alice")
    assert_failure("config", token, message, code)
    assert.is_true(contains(message, "alice"))
    assert.is_true(contains(message, "directory"))
    local status, _, status_code = client:status("alice")
    assert.is_nil(status)
    assert.are.equal("config", status_code)
  end)

  it("must have names that are text", function()
    local client = client_with({ storage = { directory = helper.tmpdir() } })
    for _, name in ipairs({ "token", "refresh", "authorization", "status" }) do
      for _, account in ipairs({ "", 42, {}, false }) do
        local ok, message = pcall(function()
          local token = client[name](client, account)
          return token
        end)
        assert.is_false(ok)
        assert.is_true(contains(message, "token_spec.lua:"))
        assert.is_true(contains(message, "account"))
      end
    end
  end)
end)

describe("over TLS", function()
  local folder, port, front

  local function openssl(command)
    local _, err, status = helper.run("cd " .. helper.quote(folder) .. " && openssl " .. command)
    assert(status == 0, err)
  end

  setup(function()
    folder = helper.tmpdir()
    local key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl("req -x509 " .. key .. " -keyout ca.key -out ca.pem -days 2 -subj '/CN=Test CA'")
    openssl("req " .. key .. " -keyout server.key -out server.csr -subj /CN=localhost")
    helper.write_file(folder .. "/names", "subjectAltName=DNS:localhost\n")
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
      .. " -days 2 -extfile names -out server.pem")
    front = start_socat(
      ("OPENSSL-LISTEN:0,bind=127.0.0.1,fork,verify=0,cert=%s,key=%s"):format(
        folder .. "/server.pem", folder .. "/server.key"),
      (sandbox.url:gsub("^http://", "TCP:")))
    port = front.port
  end)

  teardown(function()
    front:kill("TERM")
    front:wait()
  end)

  it("works with the CA that ca_file names", function()
    local token = assert(client_with({
      api_url = "https://localhost:" .. port, ca_file = folder .. "/ca.pem",
    }):token())
    assert.is_true(tokens.works(sandbox, token))
  end)

  -- What became of a refresh that must not get through. The token lives, so it
  -- is tried once.
  local function assert_stopped(changes)
    local pair = tokens.pair(sandbox)
    tokens.write(path, tokens.record(pair, 60))
    local before = sandbox:counts().requests
    local client = client_with(changes)
    assert.are.equal(pair.access_token, client:token())
    assert.are.equal("refresh_failed", names_of_events())
    assert.are.equal("network", events[1].code)
    assert.is_truthy(events[1].message:lower():find("cert", 1, true), events[1].message)
    assert_no_secret(events[1].message)
    assert.are.equal(before, sandbox:counts().requests)
    assert.are.equal(pair.refresh_token, tokens.read(path).refresh_token)
    assert.is_nil(tokens.read(path).pending)
  end

  it("stops at a certificate that nobody vouches for", function()
    assert_stopped({ api_url = "https://localhost:" .. port })
  end)

  it("stops at a certificate of another host", function()
    assert_stopped({
      api_url = "https://127.0.0.1:" .. port, ca_file = folder .. "/ca.pem",
    })
  end)

  it("needs a ca_file that can be read", function()
    assert_stopped({
      api_url = "https://localhost:" .. port, ca_file = folder .. "/missing.pem",
    })
  end)
end)
