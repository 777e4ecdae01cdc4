-- The life of a token: obtained, served, refreshed, rejected, replaced.

local relay = require("spec.relay")
local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local contains = helper.contains

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

describe("a token", function()
  it("comes from the configured refresh token, and works", function()
    local token = assert(fixture:client():token())
    assert.are.equal(sandbox:grant().access_token, token)
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(1, fixture:posts())
    assert.are.equal("refreshed", fixture:names_of_events())
  end)

  it("is one value, the token and nothing else", function()
    local client = fixture:client()
    assert.are.equal(1, select("#", client:token()))
    assert.are.equal(1, select("#", client:token()))
    assert.are.equal(1, select("#", client:refresh()))
    assert.are.equal(1, select("#", client:authorization()))
  end)

  it("is served from memory", function()
    local client = fixture:client()
    local token = assert(client:token())
    for _ = 1, 1000 do
      assert(token == client:token())
    end
    assert.are.equal(1, fixture:posts())
  end)

  it("is there for the next client, without a request", function()
    local token = assert(fixture:client():token())
    assert.are.equal(token, fixture:client():token())
    assert.are.equal(1, fixture:posts())
  end)

  it("comes as the value of the Authorization header", function()
    local client = fixture:client()
    local authorization = assert(client:authorization())
    assert.are.equal("Bearer " .. client:token(), authorization)
    assert.are.equal(1, fixture:posts())
  end)

  it("stands in the file with every field of the answer", function()
    local token = assert(fixture:client():token())
    local record, grant = tokens.read(fixture.path), sandbox:grant()
    assert.are.equal(token, record.access_token)
    assert.are.equal(grant.refresh_token, record.refresh_token)
    assert.are.equal(3600, record.expires_in)
    assert.are.equal("bearer", record.token_type)
    assert.are.equal(grant.user_id, record.user_id)
    assert.are.equal(grant.scope, record.scope)
    assert.are.equal(sandbox.client_id, record.client_id)
    assert.is_nil(record.pending)
    assert.is_true(math.abs(record.expires_at - os.time() - 3600) < 60)
    local mode = helper.run("stat -c %a " .. helper.quote(fixture.path))
    assert.are.equal("600\n", mode)
  end)

  it("keeps fields of the file that it does not know", function()
    local record = tokens.record(tokens.pair(sandbox), -1)
    record.note = { by = "another program", list = { 1, { deep = "yes" } } }
    tokens.write(fixture.path, record)
    assert(fixture:client():token())
    assert.are.same(record.note, tokens.read(fixture.path).note)
  end)

  it("is refreshed when it has expired", function()
    local old = fixture:store(-1)
    local before = fixture:posts()
    local token = assert(fixture:client():token())
    assert.are_not.equal(old.access_token, token)
    assert.are.equal(before + 1, fixture:posts())
    assert.is_true(tokens.works(sandbox, token))
  end)

  it("is served as long as the file says", function()
    local old = fixture:store(1000)
    local before = fixture:posts()
    assert.are.equal(old.access_token, fixture:client():token())
    assert.are.equal(before, fixture:posts())
  end)

  it("is not served when the clock was set back behind its issue", function()
    local old = fixture:store(7200)
    local token = assert(fixture:client():token())
    assert.are_not.equal(old.access_token, token)
  end)
end)

describe("refresh_before", function()
  local function refreshes_with(left, lifetime, before)
    local old = tokens.pair(sandbox)
    tokens.write(fixture.path, tokens.record(old, left, lifetime))
    local token = assert(fixture:client({ refresh_before = before }):token())
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
    local client = fixture:client()
    local token = assert(client:token())
    assert.are.equal(token, client:token())
    assert.are.equal(token, fixture:client():token())
    assert.are.equal(1, fixture:posts())
  end)
end)

describe("refresh()", function()
  it("brings a new token whatever the expiry", function()
    local client = fixture:client()
    local old = assert(client:token())
    local new = assert(client:refresh())
    assert.are_not.equal(old, new)
    assert.are.equal(new, client:token())
    assert.is_true(tokens.works(sandbox, new))
    assert.is_false(tokens.works(sandbox, old))
    assert.are.equal(2, fixture:posts())
  end)

  it("fails loudly while the present token goes on being served", function()
    local client = fixture:client()
    local token = assert(client:token())
    sandbox:faults({
      kind = "answer", status = 429, headers = { ["Retry-After"] = "3600" },
    })
    fixture:assert_failure("rate_limited", client:refresh())
    assert.are.equal(token, client:token())
  end)
end)

describe("reject()", function()
  it("means the whole of what it is given", function()
    local client = fixture:client()
    local token = assert(client:token())
    for _, other in ipairs({ token .. "\0junk", token .. "\0", "\0" .. token }) do
      assert.is_true(client:reject(other))
      assert.are.equal(token, client:token())
    end
    assert.are.equal("refreshed", fixture:names_of_events())
    assert.are.equal(1, fixture:posts())
  end)

  for what, form in helper.sorted({
    ["the header's value"] = "Bearer %s",
    ["in lower case"] = "bearer %s",
    ["in upper case, with more space"] = " BEARER \t %s ",
    ["what was read from a file"] = "%s\n",
    ["what a program printed"] = "Bearer %s\r\n",
  }) do
    it("takes the token in any form: " .. what, function()
      local client = fixture:client()
      local old = assert(client:token())
      assert.is_true(client:reject(form:format(old)))
      assert.are_not.equal(old, assert(client:token()))
      assert.are.equal("refreshed rejected refreshed", fixture:names_of_events())
    end)
  end

  it("takes no header without a token", function()
    local client = fixture:client()
    assert(client:token())
    for _, header in ipairs({ "", " ", "Bearer", "bearer \r\n" }) do
      fixture:assert_failure("config", client:reject(header))
    end
    for _, other in ipairs({ "Bearerx", "Bearer x y", "Basic x" }) do
      assert.is_true(client:reject(other))
    end
    assert.are.equal("refreshed", fixture:names_of_events())
  end)

  it("of an account that there is none of is told as token() tells it", function()
    local client = fixture:client()
    local token, message, code = client:token("nosuch")
    fixture:assert_failure("config", token, message, code)
    assert.are.same({ nil, message, code }, { client:reject("x", "nosuch") })
    assert.are.same({ nil, message, code }, { client:reject("x\0y", "nosuch") })
  end)

  it("brings another token at the next call", function()
    local client = fixture:client()
    local old = assert(client:token())
    assert.is_true(client:reject(old))
    local new = assert(client:token())
    assert.are_not.equal(old, new)
    assert.are.equal(2, fixture:posts())
    assert.are.equal("refreshed rejected refreshed", fixture:names_of_events())
  end)

  it("does nothing the second time", function()
    local client = fixture:client()
    local old = assert(client:token())
    assert.is_true(client:reject(old))
    assert.is_true(client:reject(old))
    local new = assert(client:token())
    assert.is_true(client:reject(old))
    assert.are.equal(new, client:token())
    assert.are.equal(2, fixture:posts())
    assert.are.equal("refreshed rejected refreshed", fixture:names_of_events())
  end)

  it("of a token that is not in use changes nothing", function()
    local client = fixture:client()
    local token = assert(client:token())
    for i = 1, 10 do
      assert.is_true(client:reject("some other token " .. i))
    end
    assert.are.equal(token, client:token())
    assert.are.equal(1, fixture:posts())
  end)

  it("adopts the newer token of another process, without a request", function()
    local one, other = fixture:client(), fixture:client({ on_event = function() end })
    local old = assert(one:token())
    local new = assert(other:refresh())
    local before = fixture:posts()
    fixture.events = {}
    one:reject(old)
    assert.are.equal(new, one:token())
    assert.are.equal(before, fixture:posts())
    assert.are.equal("rejected adopted", fixture:names_of_events())
  end)

  it("holds for the storage, too: the token is not taken from there", function()
    local client = fixture:client()
    local old = assert(client:token())
    local other = fixture:client()
    other:reject(old)
    local new = assert(other:token())
    assert.are_not.equal(old, new)
    assert.is_true(tokens.works(sandbox, new))
  end)

  it("never hands the token out again, even while a refresh fails", function()
    local client = fixture:client()
    local old = assert(client:token())
    client:reject(old)
    sandbox:faults({
      kind = "answer", status = 429, times = "always",
      headers = { ["Retry-After"] = "3600" },
    })
    fixture:assert_failure("rate_limited", client:token())
    fixture:assert_failure("rate_limited", client:token())
    assert.are.equal(2, fixture:posts())
  end)

  it("says so when the server issues the very same token again", function()
    local client = fixture:client()
    local old = assert(client:token())
    sandbox:faults({ kind = "transform", set = { access_token = old } })
    client:reject(old)
    fixture:assert_failure("bad_response", client:token())
    assert.are.equal(sandbox:grant().refresh_token, tokens.read(fixture.path).refresh_token)
    assert.is_true(tokens.works(sandbox, (assert(client:token()))))
  end)

  it("takes a token and nothing else", function()
    local client = fixture:client()
    for _, misuse in ipairs({ 1, true, {}, print }) do
      assert.error_matches(function()
        client:reject(misuse)
      end, "reject takes the token that the API did not accept$")
    end
    assert.error_matches(function()
      client:reject(nil)
    end, "reject takes the token that the API did not accept$")
  end)
end)

describe("status()", function()
  it("is empty before the first call, and asks nobody", function()
    local status = fixture:client():status()
    assert.are.equal("empty", status.state)
    assert.are.equal(0, status.expires_in)
    assert.is_false(status.unsaved)
    assert.is_nil(status.last_refresh)
    assert.is_nil(status.last_error)
    assert.is_nil(status.retry_in)
    assert.are.equal(0, sandbox:counts().requests)
    assert.is_nil(helper.read_file(fixture.path))
  end)

  if math.type then
    it("counts in integers", function()
      local client = fixture:client()
      assert(client:token())
      sandbox:faults({ kind = "answer", status = 403, body = { error = "invalid_client" } })
      fixture:assert_failure("invalid_client", client:refresh())
      local status = client:status()
      assert.are.equal("integer", math.type(status.refreshes))
      assert.are.equal("integer", math.type(status.generation))
      assert.are.equal("integer", math.type(status.failures.invalid_client))
      assert.are.equal(1, status.failures.invalid_client)
    end)
  end

  it("tells of the token in use, and no secret", function()
    local client = fixture:client()
    assert(client:token())
    local status = client:status()
    assert.are.equal("ready", status.state)
    assert.is_true(status.expires_in > 3500 and status.expires_in <= 3600)
    assert.is_true(math.abs(status.last_refresh - os.time()) < 60)
    assert.is_false(status.unsaved)
    assert.is_nil(status.last_error)
    fixture:assert_no_secret(helper.text_of(status))
  end)

  it("has no refresh time when the token came from the file", function()
    fixture:store(1000)
    local client = fixture:client()
    assert(client:token())
    local status = client:status()
    assert.are.equal("ready", status.state)
    assert.is_true(status.expires_in > 900 and status.expires_in <= 1000)
    assert.is_nil(status.last_refresh)
  end)

  it("is empty after the token in use was rejected", function()
    local client = fixture:client()
    client:reject((assert(client:token())))
    local status = client:status()
    assert.are.equal("empty", status.state)
    assert.are.equal(0, status.expires_in)
  end)

  it("tells of the last failure until a success follows", function()
    sandbox:faults({
      kind = "answer", status = 429, headers = { ["Retry-After"] = "3000" },
    })
    local client = fixture:client()
    local _, message, code = client:token()
    local status = client:status()
    assert.are.equal("failing", status.state)
    assert.are.same({ code = code, message = message }, status.last_error)
    assert.is_true(status.retry_in > 2900 and status.retry_in <= 3000)
    fixture:assert_no_secret(helper.text_of(status))
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
    local old = fixture:store(60)
    return old
  end

  it("leaves the token in use as long as it lives", function()
    local old = write_aging()
    local url, taken = helper.dead_url()
    local client = fixture:client({ api_url = url })
    assert.are.equal(old.access_token, client:token())
    taken:close()
    assert.are.equal("refresh_failed", fixture:names_of_events())
    assert.are.equal("network", fixture.events[1].code)
    fixture:assert_no_secret(fixture.events[1].message)
    assert.are.equal("network", client:status().last_error.code)
    local record = tokens.read(fixture.path)
    assert.are.equal(old.refresh_token, record.refresh_token)
    assert.is_nil(record.pending)
  end)

  it("of an expired token is told, and loses nothing", function()
    local old = fixture:store(-1)
    local url, taken = helper.dead_url()
    local client = fixture:client({ api_url = url, timeout = helper.SHORT })
    local token, message, code = client:token()
    taken:close()
    fixture:assert_failure("network", token, message, code)
    assert.is_true(contains(message, "LUCID_API_URL"))
    assert.is_true(contains(message, "untouched"))
    local record = tokens.read(fixture.path)
    assert.are.equal(old.refresh_token, record.refresh_token)
    assert.are.equal(old.access_token, record.access_token)
    assert.is_nil(record.pending)
    assert.is_true(tokens.works(sandbox, (assert(fixture:client():token()))))
  end)

  it("is not repeated at every call while the server asks to wait", function()
    local old = write_aging()
    sandbox:faults({
      kind = "answer", status = 503, times = "always",
      headers = { ["Retry-After"] = "3600" },
    })
    local before = fixture:posts()
    local client = fixture:client()
    for _ = 1, 1000 do
      assert(old.access_token == client:token())
    end
    assert.are.equal(before + 1, fixture:posts())
    assert.are.equal("refresh_failed", fixture:names_of_events())
    assert.are.equal("server_error", fixture.events[1].code)
  end)

  it("is not repeated at every call that gets no token, either", function()
    sandbox:faults({
      kind = "answer", status = 503, times = "always",
      headers = { ["Retry-After"] = "3600" },
    })
    local client = fixture:client()
    local _, first = client:token()
    for _ = 1, 1000 do
      local token, message, code = client:token()
      assert(not token and message == first and code == "server_error")
    end
    assert.are.equal(1, fixture:posts())
  end)

  it("is tried again by refresh(), whatever the wait", function()
    sandbox:faults({
      kind = "answer", status = 503, headers = { ["Retry-After"] = "3600" },
    })
    local client = fixture:client()
    fixture:assert_failure("server_error", client:token())
    local token = assert(client:refresh())
    assert.are.equal(token, client:token())
    assert.are.equal(2, fixture:posts())
  end)

  it("is over when another process has refreshed", function()
    write_aging()
    sandbox:faults({
      kind = "answer", status = 503, headers = { ["Retry-After"] = "3600" },
    })
    local client = fixture:client()
    local old = assert(client:token())
    local new = assert(fixture:client():refresh())
    client:reject(old)
    assert.are.equal(new, client:token())
    assert.is_nil(client:status().last_error)
  end)

  it("is retried within one call until the server is back", function()
    sandbox:faults({ kind = "answer", status = 429, times = 2,
      headers = { ["Retry-After"] = "0" } })
    local token = assert(fixture:client():token())
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(3, fixture:posts())
    assert.are.equal(1, sandbox:counts().rotations)
  end)
end)

describe("client id and secret that the server does not take", function()
  it("are named, and nothing is spent", function()
    local client = fixture:client({ client_secret = "wrong-secret" })
    local token, message, code = client:token()
    fixture:assert_failure("invalid_client", token, message, code)
    assert.is_true(contains(message, "LUCID_CLIENT_SECRET"))
    assert.is_true(contains(message, "client_secret"))
    assert.is_false(contains(message, "wrong-secret"))
    assert.is_true(sandbox:grant().refresh_live)
    assert(fixture:client():token())
  end)
end)

describe("a dead grant", function()
  -- The file of a grant that was started from the sandbox's first refresh
  -- token, and that has ended since.
  local function write_dead()
    local client = fixture:client()
    assert(client:token())
    client:close()
    local record = tokens.read(fixture.path)
    sandbox:revoke_all("default")
    record.expires_at = os.time() - 1
    tokens.write(fixture.path, record)
    return record
  end

  it("asks for a new login, and its record stays", function()
    local record = write_dead()
    local before = fixture:posts()
    local client = fixture:client()
    local token, message, code = client:token()
    fixture:assert_failure("invalid_grant", token, message, code)
    assert.is_true(contains(message, "LUCID_REFRESH_TOKEN"))
    assert.is_true(contains(message, "refresh_token"))
    assert.are.equal(record.refresh_token, tokens.read(fixture.path).refresh_token)
    assert.is_nil(tokens.read(fixture.path).pending)
    assert.are.equal(before + 1, fixture:posts())
  end)

  it("is not asked for at every call", function()
    write_dead()
    sandbox:settings({ punish_reuse = false })
    local client = fixture:client()
    local before = fixture:posts()
    fixture:assert_failure("invalid_grant", client:token())
    fixture:assert_failure("invalid_grant", client:token())
    assert.are.equal(before + 1, fixture:posts())
  end)

  it("gives way to a new configured refresh token", function()
    write_dead()
    local login = sandbox:open_grant({ account = "again" })
    local client = fixture:client({ refresh_token = login.refresh_token })
    local token = assert(client:token())
    assert.are.equal(sandbox:grant("again").access_token, token)
    local record = tokens.read(fixture.path)
    assert.are.equal(sandbox:grant("again").refresh_token, record.refresh_token)
    assert.is_nil(record.pending)
    assert.are.equal(token, fixture:client():token())
  end)

  it("never spends the token that it was started from again", function()
    write_dead()
    fixture:assert_failure("invalid_grant", fixture:client():token())
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
    fixture:store(-1)
    local login = sandbox:open_grant({ account = "again" })
    local token =
      assert(fixture:client({ refresh_token = login.refresh_token }):token())
    assert.are.equal(sandbox:grant().access_token, token)
    assert.are.equal(0, sandbox:grant("again").rotations)
  end)

  it("is refused when the server does not know it", function()
    local client = fixture:client({ refresh_token = "not-a-token" })
    local token, message, code = client:token()
    fixture:assert_failure("invalid_grant", token, message, code)
    assert.is_false(contains(message, "not-a-token"))
    assert.are.equal(0, fixture:posts())
    assert.are.equal(1, sandbox:counts().introspections)
  end)

  it("that was refused gives way to another one", function()
    local client = fixture:client({ refresh_token = "not-a-token" })
    fixture:assert_failure("invalid_grant", client:token())
    local token = assert(fixture:client():token())
    assert.is_true(tokens.works(sandbox, token))
  end)
end)

describe("events", function()
  it("name what happened, and to which account", function()
    local client = fixture:client()
    assert(client:token())
    assert.are.same({ name = "refreshed", account = "default" }, fixture.events[1])
  end)

  it("tell of a token that another process brought", function()
    local client = fixture:client()
    assert(client:token())
    local new = assert(fixture:client({ on_event = function() end }):refresh())
    fixture.events = {}
    -- With its name an account goes the slow way, which looks at the file.
    assert.are.equal(new, client:token("default"))
    assert.are.equal("adopted", fixture:names_of_events())
    assert.are.equal(2, fixture:posts())
  end)

  it("tell of a mended file mode", function()
    fixture:store(1000)
    assert(os.execute("chmod 644 " .. helper.quote(fixture.path)))
    assert(fixture:client():token())
    assert.are.equal("repaired", fixture:names_of_events())
    assert.are.equal("600\n", (helper.run("stat -c %a " .. helper.quote(fixture.path))))
  end)

  it("may call the client", function()
    local client, inside
    client = fixture:client({
      on_event = function(event)
        inside = { event.name, client:token() }
      end,
    })
    local token = assert(client:token())
    assert.are.same({ "refreshed", token }, inside)
    assert.are.equal(1, fixture:posts())
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
    fixture:assert_no_secret(err)
  end)
end)

describe("close()", function()
  it("may be called twice", function()
    local client = fixture:client()
    assert(client:token())
    assert.is_true(client:close())
    assert.is_true(client:close())
  end)

  it("leaves a client that no longer hands anything out", function()
    local client = fixture:client()
    assert(client:token())
    client:close()
    for _, name in ipairs({ "token", "refresh", "authorization", "status" }) do
      assert.has_error(function()
        client[name](client)
      end)
    end
  end)

  it("of the module makes room for a client from the environment", function()
    lucid.configure(fixture:options())
    assert(lucid.token())
    lucid.close()
    lucid.close()
    local other = helper.tmpdir() .. "/other.json"
    lucid.configure(fixture:options({ storage = other }))
    fixture:assert_failure("invalid_grant", lucid.token())
  end)

  it("saves what could not be saved before", function()
    local client = fixture:client()
    assert(client:token())
    -- A directory in the token file's place stops even root. It comes
    -- with the POST, when the mark has been saved already.
    local server = sandbox.url:gsub("^http://", ""):gsub(":", "\\:")
    local gate = relay.start("TCP-LISTEN:0,bind=127.0.0.1",
      ("SYSTEM:mv %s %s.aside && mkdir %s && exec socat - TCP\\:%s"):format(
        fixture.path, fixture.path, fixture.path, server))
    local gated = fixture:client({ api_url = "http://127.0.0.1:" .. gate.port })
    local token = assert(gated:refresh())
    gate:wait()
    assert.is_true(gated:status().unsaved)
    assert.is_true(contains(fixture:names_of_events(), "refreshed save_failed"))
    fixture:assert_no_secret(fixture.events[#fixture.events].message)
    assert.are.equal(token, gated:token())
    local path = helper.quote(fixture.path)
    assert(os.execute(("rmdir %s && mv %s.aside %s"):format(path, path, path)))
    gated:close()
    assert.are.equal("saved", fixture.events[#fixture.events].name)
    assert.are.equal(token, tokens.read(fixture.path).access_token)
    assert.are.equal(token, fixture:client():token())
  end)
end)

describe("clients", function()
  it("are as many as one likes, each with tokens of its own", function()
    local login = sandbox:open_grant({ account = "second" })
    local one = fixture:client()
    local other = fixture:client({
      refresh_token = login.refresh_token, storage = fixture.path .. ".second",
    })
    local first, second = assert(one:token()), assert(other:token())
    assert.are.equal(sandbox:grant().access_token, first)
    assert.are.equal(sandbox:grant("second").access_token, second)
    other:close()
    assert.are.equal(first, one:token())
  end)

  it("may keep their tokens in memory alone", function()
    local client = fixture:client({ storage = { type = "memory" } })
    local token = assert(client:token())
    assert.are.equal(token, client:token())
    local new = assert(client:refresh())
    assert.are_not.equal(token, new)
    assert.are.equal(new, client:token())
    assert.is_nil(helper.read_file(fixture.path))
  end)

  it("are collected when nobody needs them", function()
    local seen = setmetatable({ lucid.new(fixture:options()) }, { __mode = "v" })
    assert(seen[1]:token())
    collectgarbage()
    collectgarbage()
    assert.is_nil(seen[1])
  end)
end)

describe("configure()", function()
  it("sets up the functions of the module", function()
    assert.is_true(lucid.configure(fixture:options()))
    local token = assert(lucid.token())
    assert.are.equal(token, lucid.token())
    assert.are.equal("Bearer " .. token, lucid.authorization())
    assert.are.equal("ready", lucid.status().state)
    assert.is_true(lucid.reject(token))
    local new = assert(lucid.token())
    assert.are_not.equal(token, new)
    assert.are_not.equal(new, assert(lucid.refresh()))
    assert.are.equal(3, fixture:posts())
  end)

  it("may be called again: the second one counts", function()
    local login = sandbox:open_grant({ account = "second" })
    lucid.configure(fixture:options())
    local first = assert(lucid.token())
    lucid.configure(fixture:options({
      refresh_token = login.refresh_token, storage = fixture.path .. ".second",
    }))
    local second = assert(lucid.token())
    assert.are_not.equal(first, second)
    assert.are.equal(sandbox:grant("second").access_token, second)
    assert.are.equal(second, lucid.token())
  end)

  it("leaves the client as it was when it raises", function()
    lucid.configure(fixture:options())
    local token = assert(lucid.token())
    assert.has_error(function()
      lucid.configure(fixture:options({ timeout = "soon" }))
    end)
    assert.are.equal(token, lucid.token())
    assert.are.equal(1, fixture:posts())
  end)

  it("works for a token function that was taken before", function()
    local token_of = lucid.token
    lucid.configure(fixture:options())
    local token = assert(token_of())
    assert.are.equal(token, lucid.token())
    lucid.configure(fixture:options({ storage = { type = "memory" } }))
    fixture:assert_failure("invalid_grant", token_of())
  end)
end)

describe("the environment", function()
  local print_token = [[
    local token, message, code = require("lucidauth").token()
    print(token or code)
    print(message)
  ]]

  local function run_with(changes)
    return (helper.run_lua(print_token, fixture:env(changes)))
  end

  it("is enough", function()
    local out = run_with()
    assert.are.equal(sandbox:grant().access_token .. "\nnil\n", out)
    assert.are.equal(out, run_with())
    assert.are.equal(1, fixture:posts())
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
    local env = fixture:env({
      LUCID_CLIENT_SECRET = "wrong", LUCID_TOKEN_FILE = "/nowhere/at/all.json",
    })
    local out = helper.run_lua(([[
      print(require("lucidauth").new({
        client_secret = %q, storage = %q,
      }):token())
    ]]):format(sandbox.client_secret, fixture.path), env)
    assert.are.equal(sandbox:grant().access_token .. "\n", out)
  end)

  it("with an empty variable is as without it", function()
    local out = run_with({ LUCID_REFRESH_TOKEN = "" })
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
    ]]):format(sandbox.refresh_token), fixture:env({ LUCID_REFRESH_TOKEN = false }))
    assert.are.equal("config\n" .. sandbox:grant().access_token .. "\n", out)
  end)

  for name, variable in pairs({
    client_id = "LUCID_CLIENT_ID",
    client_secret = "LUCID_CLIENT_SECRET",
    refresh_token = "LUCID_REFRESH_TOKEN",
  }) do
    it("without " .. variable .. " names it and its option", function()
      local out = run_with({ [variable] = false })
      assert.are.equal("config", out:match("^[^\n]*"))
      assert.is_true(contains(out, variable))
      assert.is_true(contains(out, name))
      assert.are.equal(0, sandbox:counts().requests)
    end)
  end

  it("need not be set at all while the file's token is good", function()
    local pair = fixture:store(1000)
    local out = helper.run_lua(print_token, tokens.env({ LUCID_TOKEN_FILE = fixture.path }))
    assert.are.equal(pair.access_token .. "\nnil\n", out)
  end)

  it("that cannot be used is a failure, not an error", function()
    local out = run_with({ LUCID_API_URL = "http://api.example.invalid" })
    assert.are.equal("config", out:match("^[^\n]*"))
    assert.is_true(contains(out, "LUCID_API_URL"))
    assert.is_true(contains(out, "https"))
    local secret = "first line\nsecond line"
    out = run_with({ LUCID_CLIENT_SECRET = secret })
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
    local client = fixture:client({ storage = { type = "file", directory = folder } })
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
    assert.are.equal("alice", fixture.events[#fixture.events].account)
  end)

  it("spends the configured refresh token once, for one account", function()
    local folder = helper.tmpdir()
    local client = fixture:client({ storage = { directory = folder } })
    local token = assert(client:token())
    local other, message, code = client:token("alice")
    fixture:assert_failure("config", other, message, code)
    assert.is_true(contains(message, "alice"))
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(1, fixture:posts())
  end)

  it("is what it takes to have several", function()
    local client = fixture:client()
    local token, message, code = client:token("alice")
    fixture:assert_failure("config", token, message, code)
    assert.is_true(contains(message, "alice"))
    assert.is_true(contains(message, "directory"))
    local status, _, status_code = client:status("alice")
    assert.is_nil(status)
    assert.are.equal("config", status_code)
  end)

  it("must have names that are text", function()
    local client = fixture:client({ storage = { directory = helper.tmpdir() } })
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
  local server, url

  setup(function()
    server = relay.tls(sandbox.url)
    url = server.url
  end)

  teardown(function()
    server:stop()
  end)

  it("works with the CA that ca_file names", function()
    local token = assert(fixture:client({
      api_url = url, ca_file = server.ca_file,
    }):token())
    assert.is_true(tokens.works(sandbox, token))
  end)

  -- The outcome of a refresh that must not get through. The token lives, so it
  -- is tried once.
  local function assert_stopped(changes)
    local pair = fixture:store(60)
    local before = sandbox:counts().requests
    local client = fixture:client(changes)
    assert.are.equal(pair.access_token, client:token())
    assert.are.equal("refresh_failed", fixture:names_of_events())
    assert.are.equal("network", fixture.events[1].code)
    local message = fixture.events[1].message
    assert.is_truthy(message:lower():find("cert", 1, true), message)
    fixture:assert_no_secret(fixture.events[1].message)
    assert.are.equal(before, sandbox:counts().requests)
    assert.are.equal(pair.refresh_token, tokens.read(fixture.path).refresh_token)
    assert.is_nil(tokens.read(fixture.path).pending)
  end

  it("stops at a certificate that nobody vouches for", function()
    assert_stopped({ api_url = url })
  end)

  it("stops at a certificate of another host", function()
    assert_stopped({
      api_url = (url:gsub("localhost", "127.0.0.1")), ca_file = server.ca_file,
    })
  end)

  it("needs a ca_file that can be read when the client is made", function()
    for name, words in helper.sorted({
      ["missing.pem"] = "No such file or directory",
      [""] = "Is a directory",
    }) do
      local ok, message = pcall(fixture.client, fixture, { ca_file = server.folder .. "/" .. name })
      assert.is_false(ok)
      assert.is_truthy(message:find("ca_file", 1, true), message)
      assert.is_truthy(message:find(server.folder .. "/" .. name, 1, true), message)
      assert.is_truthy(message:find(words, 1, true), message)
    end
  end)

  it("finds a ca_file where it was when the client was made", function()
    local out, err = helper.run(("cd %s && exec %s -e %s"):format(helper.quote(server.folder),
      helper.quote(helper.interpreter), helper.quote(([[
        local client = require("lucidauth").new({ api_url = %q, ca_file = "ca.pem" })
        assert(require("lfs").chdir("/"))
        print(client:token())
      ]]):format(url))), fixture:env())
    assert.is_true(tokens.works(sandbox, out:match("^%S+")), out .. err)
  end)
end)

describe("a client that is closed", function()
  local methods = {
    token = function(client) local token = client:token() return token end,
    ["token of an account"] = function(client) local token = client:token("x") return token end,
    authorization = function(client) local value = client:authorization() return value end,
    refresh = function(client) local token = client:refresh() return token end,
    reject = function(client) local ok = client:reject("x") return ok end,
    status = function(client) local status = client:status() return status end,
    metrics = function(client) local text = client:metrics() return text end,
  }
  local functions = { load = function() end, save = function() end }

  for name, call in pairs(methods) do
    for what, storage in pairs({ file = false, functions = functions }) do
      it("raises at the caller's line: " .. name .. ", " .. what, function()
        local client = fixture:client({ storage = storage or nil })
        assert.is_true(client:close())
        assert.is_true(client:close())
        local ok, message = pcall(call, client)
        assert.is_false(ok)
        assert.are.equal("this lucidauth client is closed",
          message:match("token_spec%.lua:%d+: (.*)"))
      end)
    end
  end
end)

-- One of Lua's slips: what is left out, or is there unasked, is not what is named
-- by an error further down, and a token may be another account's.
describe("a dot or a colon in the wrong place", function()
  local functions = { load = function() end, save = function() end }

  local with_a_colon = "write client:%s(...), with a colon: client.%s(...) leaves the client out"
  local with_a_dot = "write lucid.%s(...), with a dot: "
    .. "lucid:%s(...) passes the module as an argument"

  local function assert_told(expected, call)
    local ok, message = pcall(call)
    assert.is_false(ok)
    assert.are.equal(expected, message:match("token_spec%.lua:%d+: (.*)"), message)
  end

  for _, name in ipairs({
    "token", "authorization", "refresh", "reject", "status", "metrics", "close", "store",
  }) do
    local colon = with_a_colon:format(name, name)
    local dot = with_a_dot:format(name, name)

    it("is told at its line: client." .. name, function()
      for _, storage in ipairs({ fixture.path, functions, { type = "memory" } }) do
        local client = fixture:client({ storage = storage })
        client:token()
        for _, argument in ipairs({ "anna", 1, lucid, false }) do
          assert_told(colon, function()
            local result = client[name](argument or nil)
            return result
          end)
        end
        assert_told(colon, function()
          local result = client[name]()
          return result
        end)
      end
    end)

    it("is told at its line: lucid:" .. name, function()
      for _, storage in ipairs({ false, fixture.path, functions }) do
        if storage then
          lucid.configure(fixture:options({ storage = storage }))
          lucid.token()
        end
        for _, argument in ipairs({ "anna", false }) do
          assert_told(dot, function()
            local result = lucid[name](lucid, argument or nil)
            return result
          end)
        end
      end
    end)
  end

  it("is told at its line: lucid:configure, lucid:new", function()
    for _, name in ipairs({ "configure", "new" }) do
      assert_told(with_a_dot:format(name, name), function()
        local result = lucid[name](lucid, { storage = fixture.path })
        return result
      end)
    end
  end)

  it("hands out no other account's token", function()
    local client = fixture:client({ storage = { directory = fixture.folder } })
    local token = assert(client:token())
    assert.has_error(function()
      client.token("anna")
    end)
    assert.are.equal(token, client:token())
  end)
end)

describe("metrics()", function()
  it("has only accounts that there are", function()
    local client = fixture:client()
    for i = 1, 3 do
      fixture:assert_failure("config", client:token("nosuch" .. i))
    end
    assert(client:token())
    local text = client:metrics()
    assert.is_true(helper.contains(text, 'lucidauth_refreshes_total{account="default"} 1\n'))
    assert.is_false(helper.contains(text, "nosuch"))
    assert.are.same({ default = true }, client.accounts)
  end)

  it("tells all that status() tells in numbers", function()
    sandbox:faults({ kind = "answer", status = 403, body = { error = "invalid_client" } })
    local client = fixture:client()
    fixture:assert_failure("invalid_client", client:token())
    assert.is_true(helper.contains(client:metrics(),
      'lucidauth_last_error{account="default",code="invalid_client"} 1\n'))
    local before = os.time()
    assert(client:refresh())
    local status, text = client:status(), client:metrics("x_")
    local function value(name, labels)
      local head = ("\nx_%s{account=\"default\"%s} "):format(name, labels or "")
      local _, from = text:find(head, 1, true)
      return from and tonumber(text:match("^%S+", from + 1))
    end
    assert.are.equal(status.refreshes, value("refreshes_total"))
    assert.are.equal(1, value("refresh_failures_total", ',code="invalid_client"'))
    assert.are.equal(status.lifetime, value("lifetime_seconds"))
    assert.are.equal(status.last_refresh, value("last_refresh_timestamp_seconds"))
    assert.is_true(value("last_refresh_timestamp_seconds") >= before)
    assert.are.equal(0, value("retry_in_seconds"))
    assert.are.equal(status.shared and 1 or 0, value("shared"))
    assert.are.equal(0, value("unsaved"))
    for _, state in ipairs({ "ready", "expired", "failing", "empty" }) do
      local label = (',state="%s"'):format(state)
      assert.are.equal(state == status.state and 1 or 0, value("state", label))
    end
    for line in text:gmatch("[^\n]+") do
      assert.is_truthy(line:find("^# HELP x_[%l_]+ %S") or line:find("^# TYPE x_[%l_]+ %l+$")
        or line:find('^x_[%l_]+{account="default"[^{}]*} %-?[%d.e+]+$'), line)
    end
  end)
end)

describe("what a login gave", function()
  local codec = require("lucidauth.sandbox.codec")

  local function directory(changes)
    return fixture:client(helper.merge({
      storage = { type = "file", directory = fixture.folder },
    }, changes))
  end

  local function file_of(account)
    return tokens.read(fixture.folder .. "/" .. account .. ".json")
  end

  local dead = { refresh_token = "gone-for-good-000" }

  for kind, given in pairs({
    ["as a table"] = function(answer)
      return answer
    end,
    ["as JSON text"] = codec.encode_json,
    ["wrapped into something"] = function(answer)
      return { data = answer }
    end,
  }) do
    it("starts an account of its own, " .. kind, function()
      local client, other = directory(), directory()
      local token, message, code = client:token("anna")
      fixture:assert_failure("config", token, message, code)
      assert.is_truthy(message:find('client:store(answer, "anna")', 1, true))
      assert.is_nil(message:find("LUCID_REFRESH_TOKEN", 1, true))
      local answer = tokens.pair(sandbox)
      local posts = fixture:posts()
      assert.is_true(client:store(given(answer), "anna"))
      assert.are.equal(answer.access_token, client:token("anna"))
      assert.are.equal(answer.access_token, other:token("anna"))
      assert.are.equal(posts, fixture:posts())
      assert.are.equal(answer.scope, file_of("anna").scope)
      assert.are.equal("stored", fixture:names_of_events())
      assert(client:refresh("anna"))
    end)
  end

  it("may be a refresh token alone, which the next call uses", function()
    local client = directory()
    assert.is_true(client:store(sandbox.refresh_token .. "\n", "anna"))
    assert.is_true(tokens.works(sandbox, assert(client:token("anna"))))
    assert.are.equal(1, fixture:posts())
  end)

  it("takes the place of a dead grant, and of a living one only when told so", function()
    local client, other = directory(), directory()
    assert.is_true(client:store(dead, "anna"))
    local token, message, code = client:token("anna")
    fixture:assert_failure("invalid_grant", token, message, code)
    assert.is_truthy(message:find('client:store(answer, "anna")', 1, true))
    local answer = tokens.pair(sandbox)
    assert.is_true(other:store(answer, "anna")) -- as introspection says
    assert.are.equal(answer.access_token, client:token("anna"))
    local refused
    refused, message, code = client:store("another-000", "anna")
    fixture:assert_failure("config", refused, message, code)
    assert.is_truthy(message:find("{ replace = true }", 1, true))
    assert.are.equal(answer.refresh_token, file_of("anna").refresh_token)
    assert.is_true(client:store("another-000", "anna", { replace = true }))
    assert.are.equal("another-000", file_of("anna").refresh_token)
    assert.is_nil(client:status("anna").last_error)
  end)

  it("is refused when its refresh token was spent here", function()
    local client = fixture:client()
    assert(client:token())
    assert(client:refresh())
    local refused, message, code = client:store(sandbox.refresh_token, { replace = true })
    fixture:assert_failure("invalid_grant", refused, message, code)
    fixture:assert_no_secret(message)
  end)

  it("is stored for the module's own client as well", function()
    lucid.configure(fixture:options())
    local answer = tokens.pair(sandbox)
    assert.is_true(lucid.store(answer))
    assert.are.equal(answer.access_token, lucid.token())
  end)

  it("is stored in memory, and by the background's thread while a loop goes on", function()
    local client = fixture:client({
      storage = { type = "memory" },
      sleep = function()
        coroutine.yield()
      end,
    })
    local answer, stored, message = tokens.pair(sandbox), nil, nil
    local yields = 0
    local thread = coroutine.create(function()
      stored, message = client:store(answer)
    end)
    while coroutine.status(thread) ~= "dead" do
      assert(coroutine.resume(thread))
      yields = yields + 1
      require("socket").sleep(0.001)
    end
    assert.is_true(stored, message)
    assert.is_true(yields > 1)
    assert.are.equal(answer.access_token, client:token())
  end)

  local secret = "hush-hush-0123456789"
  for what, given in pairs({
    ["nothing"] = "",
    ["white space"] = " \t\r\n",
    ["a header"] = "Bearer " .. secret,
    ["words"] = secret .. " and more",
    ["a word for nothing"] = "null",
    ["a list"] = "[1]",
    ["a string in quotes"] = '"' .. secret .. '"',
    ["a page"] = "<html>" .. secret .. "</html>",
    ["an address"] = "https://app.example/callback?code=" .. secret,
    ["half an answer"] = '{"access_token":"' .. secret .. '","refr',
    ["an empty table"] = {},
    ["a list of tokens"] = { secret },
    ["an error"] = { error = "invalid_grant", error_description = secret },
    ["an error and its echo"] = { error = { code = secret } },
    ["a number for a token"] = { access_token = secret, refresh_token = 7 },
    ["a broken access token"] = { access_token = secret .. "\n", refresh_token = secret },
    ["a number for a token, wrapped"] = { data = { access_token = secret, refresh_token = 7 } },
    ["an unfinished refresh, wrapped"] = {
      data = { refresh_token = secret, pending = { since = 1 } },
    },
    ["a header for a token"] = { access_token = "Bearer " .. secret, refresh_token = "r" },
    ["a token of another type"] = { access_token = secret, token_type = "mac" },
    ["an unfinished refresh"] = { refresh_token = secret, pending = { since = 1 } },
    ["an expired token"] = { access_token = secret, expires_at = 1700000000 },
    ["something huge"] = { refresh_token = secret, junk = ("x"):rep(2000000) },
    ["a huge token"] = ("x"):rep(70000),
    ["a NUL byte"] = secret .. "\0x",
    ["NUL bytes in JSON"] = '{"refresh_token":"' .. secret .. '\0"}',
    ["an escaped NUL byte"] = { refresh_token = secret .. "\0" },
    ["a function"] = { refresh_token = secret, more = print },
  }) do
    it("is not " .. what, function()
      local client = directory()
      local stored, message, code = client:store(given, "anna")
      fixture:assert_failure("config", stored, message, code)
      assert.is_nil(message:find("hush", 1, true))
      assert.is_nil(file_of("anna"))
    end)
  end

  -- Tables that no JSON text can stand for.
  local function twice_in_itself()
    local answer = { refresh_token = secret }
    answer.one, answer.other = answer, answer
    return answer
  end

  local function with_many_ways_in()
    local answer = { refresh_token = secret }
    for _ = 1, 90 do
      answer = { one = answer, other = answer }
    end
    return answer
  end

  local function endless()
    error("a metatable's function was called")
  end

  for what, given in pairs({
    ["a table that holds itself"] = twice_in_itself(),
    ["a table with ever more ways to the same"] = with_many_ways_in(),
    ["a number for a key"] = { refresh_token = secret, [7] = "x" },
    ["a list with a name in it"] = { secret, refresh_token = secret },
    ["a list with a hole"] = { refresh_token = secret, scopes = { "a", nil, "c" } },
    ["a file for a token"] = { refresh_token = io.stdout },
    ["a coroutine"] = { refresh_token = secret, more = coroutine.create(print) },
    ["huge strings"] = { secret, ("x"):rep(1000000), ("x"):rep(1000000), ("x"):rep(1000000) },
  }) do
    it("is not " .. what, function()
      local client = directory()
      local stored, message, code = client:store(given, "anna")
      fixture:assert_failure("config", stored, message, code)
      assert.is_truthy(message:find("cannot be written as JSON", 1, true), message)
      assert.is_nil(message:find("hush", 1, true))
      assert.is_nil(file_of("anna"))
    end)
  end

  it("is what stands in the table, whatever its metatables do", function()
    local client = directory()
    local answer = setmetatable({ refresh_token = "r-000", scope = setmetatable({ "a", "b" }, {
      __index = endless, __len = endless,
    }) }, { __index = endless, __len = endless, __pairs = endless, __tostring = endless })
    assert.is_true(client:store(answer, "anna"))
    assert.are.equal("r-000", file_of("anna").refresh_token)
    assert.are.same({ "a", "b" }, file_of("anna").scope)
  end)

  -- The one that is stored under this name.
  local function stored_from(answer, account)
    local client = directory()
    assert(client:store(answer, account))
    return file_of(account), client
  end

  it("may have a JSON library's null for what it does not have", function()
    local nulls = { require("cjson").null, setmetatable({}, { __tojson = endless }) }
    for i, null in ipairs(nulls) do
      local answer = tokens.pair(sandbox)
      answer.refresh_token, answer.scope = null, null
      local record, client = stored_from(answer, "anna" .. i)
      assert.is_nil(record.refresh_token)
      assert.are.equal(answer.access_token, client:token("anna" .. i))
    end
  end)

  it("is in UTF-8 where its refresh token is", function()
    local client = directory()
    fixture:assert_failure("config", client:store({ refresh_token = "r\xff-000" }, "anna"))
    fixture:assert_failure("config", client:store("r\xff-000", "anna"))
    assert.is_nil(file_of("anna"))
    assert.is_true(client:store({ refresh_token = "r-000", name = "Zo\xeb" }, "zoe"))
    assert.are.equal("r-000", file_of("zoe").refresh_token)
  end)

  for what, lifetime in pairs({
    ["milliseconds"] = { expires_in = 3600000 },
    ["a string"] = { expires_in = "3600" },
    ["a moment"] = { expires_in = os.time() + 3600 },
    ["a moment in milliseconds"] = { expires_in = (os.time() + 3600) * 1000 },
    ["a date"] = { expires_at = os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() + 3600) },
    ["not there"] = {},
    ["null"] = { expires_in = require("cjson").null },
    ["negative"] = { expires_in = -1 },
    ["infinite"] = { expires_in = math.huge },
  }) do
    it("lives for no ten years where its lifetime is " .. what, function()
      local answer = tokens.pair(sandbox)
      answer.expires_in = lifetime.expires_in
      answer.expires_at = lifetime.expires_at
      local record = stored_from(answer, "anna")
      assert.is_true(record.expires_at < os.time() + 3700)
      assert.are.equal(answer.refresh_token, record.refresh_token)
    end)
  end

  it("keeps a list of scopes as it is", function()
    local answer = tokens.pair(sandbox)
    answer.scope = { "user.profile", "offline_access" }
    assert.are.same(answer.scope, (stored_from(answer, "anna")).scope)
  end)

  it("may be the example script's file, or a record of ours, whose time goes on", function()
    local answer = tokens.pair(sandbox)
    local script = helper.merge(answer, {
      expiration = os.date("%Y-%m-%dT%H:%M:%S.000001", os.time() + 600),
    })
    local record, client = stored_from(script, "script")
    assert.is_true(math.abs(record.expires_at - (os.time() + 600)) < 60)
    assert.are.equal(answer.access_token, client:token("script"))
    record, client = stored_from(tokens.record(answer, 700), "ours")
    assert.is_true(math.abs(record.expires_at - (os.time() + 700)) < 60)
    assert.are.equal(answer.access_token, client:token("ours"))
    assert.is_true(tokens.works(sandbox, assert(client:refresh("ours"))))
    record = stored_from(helper.read_file(fixture.folder .. "/ours.json"), "copy")
    assert.are.equal(file_of("ours").refresh_token, record.refresh_token)
  end)

  it("may be a record that has expired, whose refresh token lives", function()
    local answer = tokens.pair(sandbox)
    for name, record in pairs({
      ours = tokens.record(answer, -700),
      script = helper.merge(answer, {
        expiration = os.date("%Y-%m-%dT%H:%M:%S.000001", os.time() - 600),
      }),
    }) do
      local stored = stored_from(record, name)
      assert.is_true(stored.expires_at < os.time(), name)
    end
  end)

  it("is not another app's", function()
    local answer = tokens.pair(sandbox)
    answer.client_id = "another-app"
    local stored, message, code = directory():store(answer, "anna")
    fixture:assert_failure("config", stored, message, code)
    assert.is_truthy(message:find("another-app", 1, true), message)
    assert.is_nil(file_of("anna"))
  end)

  it("leaves the dead grant as it was where its refresh token alone is refused later", function()
    local client = directory()
    for _, refresh_token in ipairs({ "gone-000", "gone-001" }) do
      assert.is_true(client:store(refresh_token, "anna"))
      local token, message, code = client:token("anna")
      fixture:assert_failure("invalid_grant", token, message, code)
      assert.is_truthy(message:find('client:store(answer, "anna")', 1, true))
      assert.is_truthy(message:find('For the account "anna"', 1, true))
      assert.are.equal("gone-000", file_of("anna").refresh_token)
    end
    local answer = tokens.pair(sandbox)
    assert.is_true(client:store(answer, "anna"))
    assert.are.equal(answer.access_token, client:token("anna"))
  end)

  it("is a table or a string, and there is one option", function()
    local client = directory()
    for text, call in pairs({
      ["store takes a token answer"] = function()
        client:store(7)
      end,
      ["store has no option \"force\""] = function()
        client:store("r", "anna", { force = true })
      end,
      ["replace must be true or false"] = function()
        client:store("r", "anna", { replace = 1 })
      end,
      ["options of store must be a table"] = function()
        client:store("r", "anna", true)
      end,
    }) do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.is_truthy(message:find(text, 1, true), message)
      assert.is_truthy(message:find("token_spec.lua:%d+: "), message)
    end
  end)
end)
