-- One token file, several processes: what one of them learns, all know at once,
-- and what one of them leaves unfinished the others settle.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")
local parallel = require("spec.parallel")
local lucid = require("lucidauth")
local process = require("spec.process")
local tokens = require("spec.tokens")

local contains, quote, shell = helper.contains, helper.quote, helper.shell
local eventually = helper.eventually

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

local processes

-- Much of what they do is to wait for one another.
local it = parallel.deal(5, it, teardown)

local function start(changes)
  local one = process.start(fixture:plain_options(changes))
  processes[#processes + 1] = one
  return one
end

local function start_many(count, changes)
  local list = process.start_many(count, fixture:plain_options(changes))
  for _, one in ipairs(list) do
    processes[#processes + 1] = one
  end
  return list
end

local function tell_all(list, code)
  for _, one in ipairs(list) do
    one:send(code)
  end
end

local function always(fault)
  fault.times = "always"
  return fault
end

before_each(function()
  processes = {}
end)

after_each(function()
  for _, one in ipairs(processes) do
    one:kill()
  end
end)

describe("a login that is stored", function()
  -- The refresh is held at the server until the other process waits for its end.
  it("waits for another process's refresh, and is seen by that one's next call", function()
    fixture:store(-1)
    local one, other = start(), start()
    sandbox:faults({ kind = "held", when = "before", endpoint = "token" })
    one:send("return client:token()")
    eventually(function()
      return fixture:posts() == 2 -- the first one brought what was stored
    end)
    assert.are.equal("suspended", (other:run([[
      options.sleep = function() coroutine.yield() end
      local looped = lucid.new(options)
      thread = coroutine.create(function()
        stored, message = looped:store("login-000", { replace = true })
      end)
      for _ = 1, 20 do
        assert(coroutine.resume(thread))
        socket.sleep(0.001)
      end
      return coroutine.status(thread)
    ]])))
    sandbox:clear_faults()
    local token, message = one:receive()
    assert.is_string(token, message)
    assert.is_true((other:run([[
      while coroutine.status(thread) ~= "dead" do
        assert(coroutine.resume(thread))
        socket.sleep(0.001)
      end
      return stored, message
    ]])))
    assert.are.equal("login-000", tokens.read(fixture.path).refresh_token)
    local refused, code
    refused, message, code = one:run("return client:token()")
    fixture:assert_failure("invalid_grant", refused, message, code)
  end)

  it("is the other process's at its next call", function()
    fixture:store(-1)
    local one, other = start(), start()
    assert.is_string((one:run("return client:token()")))
    assert.is_string((other:run("return client:token()")))
    for _ = 1, 5 do
      local answer = tokens.pair(sandbox)
      assert.is_true((one:run(("return client:store(%q, { replace = true })"):format(
        codec.encode_json(answer)))))
      assert.are.equal(answer.access_token, (other:run("return client:token()")))
    end
  end)
end)

describe("another process's refresh", function()
  it("is seen by the very next call", function()
    local one, other = fixture:client(), start()
    assert(one:token())
    for _ = 1, 20 do
      local token = other:run("return client:refresh()")
      assert.are.equal(token, one:token())
      token = one:refresh()
      assert.are.equal(token, (other:run("return client:token()")))
    end
    assert.are.equal(41, fixture:posts())
  end)

  it("is seen by those who were there before there was a file", function()
    local one, other = lucid.new({ api_url = sandbox.url, storage = fixture.path }), start()
    fixture.clients[1] = one
    assert.is_nil(one:token())
    local token = other:run("return client:token()")
    assert.are.equal(token, one:token())
    token = other:run("return client:refresh()")
    assert.are.equal(token, one:token())
    assert.are.equal(2, fixture:posts())
  end)

  it("after a rejection is seen by the very next call, too", function()
    local one, other = fixture:client(), start()
    local old = assert(one:token())
    assert.are.equal(old, (other:run("return client:token()")))
    local new = other:run("client:reject(client:token()); return client:token()")
    assert.are_not.equal(old, new)
    assert.are.equal(new, one:token())
    assert.are.equal(2, fixture:posts())
  end)

  it("makes the generation grow, and leaves it even", function()
    local one, other = fixture:client(), start()
    assert(one:token())
    local last = one:status().generation
    assert.are.equal(0, last % 2)
    for _ = 1, 3 do
      other:run("return client:refresh()")
      local status = one:status()
      assert.is_true(status.shared)
      assert.are.equal(0, status.generation % 2)
      assert.is_true(status.generation > last)
      last = status.generation
    end
  end)

  it("makes the generation odd while it is under way", function()
    local one, other = fixture:client(), start()
    assert(one:token())
    assert.are.equal(0, one:status().generation % 2)
    sandbox:faults({ kind = "hang" })
    other:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    assert.are.equal(1, one:status().generation % 2)
  end)

  it("of one account is nothing to the others", function()
    local storage = { type = "file", directory = fixture.folder }
    for _, name in ipairs({ "anna", "bert" }) do
      sandbox:open_grant({ account = name })
      tokens.write(fixture.folder .. "/" .. name .. ".json",
        tokens.record(tokens.pair(sandbox, name), 1000))
    end
    local one, other = fixture:client({ storage = storage }), start({ storage = storage })
    local anna, bert = one:token("anna"), one:token("bert")
    local generation = one:status("bert").generation
    local new = other:run("return client:refresh('anna')")
    assert.are_not.equal(anna, new)
    assert.are.equal(new, one:token("anna"))
    assert.are.equal(bert, one:token("bert"))
    assert.are.equal(generation, one:status("bert").generation)
  end)

  it("is waited for by all, who have it as soon as it is there", function()
    local many = start_many(16, { refresh_wait = helper.LONG, timeout = 2 * helper.LONG })
    local owner = start()
    local old = owner:run("return client:token()")
    tell_all(many, "return client:token()")
    for _, one in ipairs(many) do
      assert.are.equal(old, (one:receive()))
    end
    sandbox:faults({ kind = "held" })
    owner:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    tell_all(many, "return client:token()")
    sandbox:clear_faults()
    local new = owner:receive()
    assert.are_not.equal(old, new)
    for _, one in ipairs(many) do
      local token = one:receive()
      assert.are.equal(new, token)
      assert.is_true(one.seconds < helper.LONG, one.seconds)
    end
    assert.are.equal(2, fixture:posts())
  end)

  it("is waited for no longer than refresh_wait while the token lives", function()
    local owner, other = start({ timeout = helper.LONG }), start({ refresh_wait = 0.2 })
    local old = owner:run("return client:token()")
    assert.are.equal(old, (other:run("return client:token()")))
    sandbox:faults({ kind = "held" })
    owner:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    assert.are.equal(old, (other:run("return client:token()")))
    assert.is_true(other.seconds >= 0.2, other.seconds)
    assert.are.equal(2, fixture:posts())
  end)

  it("is waited for once a flight, not at every call", function()
    local owner, other = start({ timeout = helper.LONG }), start({ refresh_wait = 0.5 })
    owner:run("return client:token()")
    other:run("return client:token()")
    sandbox:faults({ kind = "held" })
    owner:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    other:run("assert(client:token())")
    local first = other.seconds
    assert.is_true(first >= 0.5, first)
    other:run("for _ = 1, 100 do assert(client:token()) end")
    assert.is_true(other.seconds < 50 * first, other.seconds)
    sandbox:clear_faults()
    assert.are.equal((owner:receive()), (other:run("return client:token()")))
  end)

  it("of a token that is dead is waited for as long as it takes", function()
    local owner, other = start(), start({ refresh_wait = 0.001 })
    local served = start()
    local old = owner:run("return client:token()")
    other:run("return client:token()")
    sandbox:faults({ kind = "held" })
    owner:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    other:send(("client:reject(%q); return client:token()"):format(old))
    -- nobody hands it out any more, so `served` waits, too
    served:send("return client:token()")
    sandbox:clear_faults()
    local token = other:receive()
    assert.are_not.equal(old, token)
    assert.are.equal((owner:receive()), token)
    assert.are.equal((served:receive()), token)
    assert.are.equal(2, fixture:posts())
  end)
end)

describe("a process that dies in its refresh", function()
  -- It has died when its request had reached the server, and `other` waits.
  local function die(when)
    local owner = start()
    local other = start({ refresh_wait = helper.LONG, timeout = 2 * helper.LONG })
    local old = owner:run("return client:token()")
    other:run("return client:token()")
    local rotations = sandbox:counts().rotations
    sandbox:faults({ kind = "hang", when = when })
    owner:send("return client:refresh()")
    eventually(function()
      local counts = sandbox:counts()
      return counts.token_requests == 2
        and (when == "before" or counts.rotations == rotations + 1)
    end)
    other:send(("client:reject(%q); return client:token()"):format(old))
    owner:kill()
    return other, owner.pid
  end

  it("before the server saw it has cost nothing", function()
    local other = die("before")
    local token = other:receive()
    assert.is_true(tokens.works(sandbox, token))
    assert.is_true(other.seconds < helper.LONG, other.seconds)
    assert.are.equal("rejected refreshed recovered",
      (other:run("return table.concat(events, ' ')")))
    local counts = sandbox:counts()
    assert.are.equal(3, counts.token_requests)
    assert.are.equal(2, counts.introspections) -- one of them before the start
    assert.are.equal(0, counts.reuses)
    assert.are.equal(0, other:run("return client:status().generation") % 2)
  end)

  it("after the server had rotated is named", function()
    local other, pid = die("after")
    local token, message, code = other:receive()
    assert.is_nil(token)
    assert.are.equal("lost_rotation", code)
    assert.is_true(contains(message, "process " .. pid .. " "), message)
    local host = shell("uname -n"):gsub("%s+$", "")
    assert.is_true(contains(message, host), message)
    assert.is_true(contains(message, "LUCID_REFRESH_TOKEN"), message)
    assert.are.equal("rejected lost", (other:run("return table.concat(events, ' ')")))
    assert.are.equal(0, sandbox:counts().reuses)
    assert.are.equal(2, fixture:posts())
    local login = sandbox:open_grant({ account = "again" }).refresh_token
    local new = fixture:client({ refresh_token = login }):token()
    assert.is_true(tokens.works(sandbox, new))
    eventually(function()
      return other:run("return client:token()") == new
    end)
  end)

  it("leaves a dead token that nobody is given", function()
    local owner = start()
    local many = start_many(16, { refresh_wait = helper.LONG, timeout = 2 * helper.LONG })
    local old = owner:run("return client:token()")
    tell_all(many, "return client:token()")
    for _, one in ipairs(many) do
      assert.are.equal(old, (one:receive()))
    end
    sandbox:faults({ kind = "hang", when = "after" })
    owner:send("return client:refresh()")
    eventually(function()
      return sandbox:counts().rotations == 2
    end)
    tell_all(many, "return client:token()")
    owner:kill()
    for _, one in ipairs(many) do
      local token, _, code = one:receive()
      assert.is_nil(token)
      assert.are.equal("lost_rotation", code)
      assert.is_true(one.seconds < helper.LONG, one.seconds)
    end
    assert.are.equal(0, sandbox:counts().reuses)
  end)

  it("is noticed by those who have nothing to wait for", function()
    local owner = start()
    local other = start({ refresh_wait = helper.LONG, timeout = 2 * helper.LONG })
    local old = owner:run("return client:token()")
    assert.are.equal(old, (other:run("return client:token()")))
    sandbox:faults({ kind = "hang" })
    owner:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    owner:kill()
    local token = other:run("return client:token()")
    assert.is_true(tokens.works(sandbox, token))
    assert.is_true(other.seconds < helper.LONG, other.seconds)
    assert.are.equal(0, sandbox:counts().reuses)
  end)
end)

describe("a program that knows no lock", function()
  -- It rewrites the file in place, in pieces: a reader may find half of it.
  local REWRITE = [[
import os, sys
path, text = sys.argv[1], sys.stdin.read()
with open(path, "w") as file:
  for i in range(0, len(text), 40):
    file.write(text[i:i + 40])
    file.flush()
    os.fsync(file.fileno())
]]

  local function rewrite(record)
    local _, err, status = helper.run({ "python3", "-c", REWRITE, fixture.path }, nil,
      codec.encode_json(record))
    assert(status == 0, err)
  end

  local function is_noticed_by(client, token)
    eventually(function()
      local got, message = client:token()
      assert(got, message)
      return got == token
    end)
  end

  -- within the second: spec/account/account_test.c
  it("is noticed", function()
    local client = fixture:client()
    assert(client:token())
    for _ = 1, 2 do
      local record = tokens.record(tokens.pair(sandbox), 1000)
      rewrite(record)
      is_noticed_by(client, record.access_token)
    end
    assert.are.equal(3, fixture:posts())
  end)

  it("is noticed at once when its token replaces a rejected one", function()
    local client = fixture:client()
    local old = assert(client:token())
    local record = tokens.record(tokens.pair(sandbox), 1000)
    rewrite(record)
    client:reject(old)
    assert.are.equal(record.access_token, client:token())
    assert.are.equal(2, fixture:posts())
  end)

  it("is noticed whatever status() has seen of it", function()
    local client = fixture:client()
    local old = assert(client:token())
    local record = tokens.record(tokens.pair(sandbox), 1000)
    rewrite(record)
    assert.are.equal("ready", client:status().state)
    is_noticed_by(client, record.access_token)
    assert.are_not.equal(old, client:token())
  end)

  it("may write while others read, and nobody fails", function()
    local client = fixture:client()
    assert(client:token())
    for _ = 1, 5 do
      local record = tokens.record(tokens.pair(sandbox), 1000)
      local script = helper.start({ "python3", "-c", REWRITE, fixture.path }, nil,
        codec.encode_json(record))
      is_noticed_by(client, record.access_token)
      script:wait()
    end
    assert.are.equal(6, fixture:posts())
  end)
end)

describe("the accounts of a folder", function()
  local function write_login(account)
    local grant = sandbox:open_grant({ account = account })
    tokens.write(fixture.folder .. "/" .. account .. ".json",
      { refresh_token = grant.refresh_token })
  end

  local function start_in_folder()
    return start({ storage = { type = "file", directory = fixture.folder } })
  end

  it("are refreshed once, whether by the folder or by the file's own path", function()
    fixture:store(-1)
    local before = sandbox:grant().rotations
    sandbox:faults({ kind = "held", when = "before" })
    local by_path, by_folder = start(), start_in_folder()
    by_path:send("return client:token()")
    by_folder:send("return client:token('token')")
    eventually(function()
      return fixture:posts() == 1
    end)
    sandbox:clear_faults()
    local token, message = by_path:receive()
    assert.are.equal(sandbox:grant().access_token, token, message)
    assert.are.equal(token, (by_folder:receive()))
    assert.are.equal(before + 1, sandbox:grant().rotations)
    assert.are.equal(0, sandbox:counts().reuses)
  end)

  -- Of two names that share one of 64 slots by FNV-1a, as locks often do.
  it("never wait for one another", function()
    write_login("anna")
    write_login("user29")
    sandbox:faults({ kind = "hang" })
    local one, other = start_in_folder(), start_in_folder()
    one:send("return client:token('anna')")
    eventually(function()
      return fixture:posts() == 1
    end)
    local token, message = other:run("return client:token('user29')")
    assert.is_string(token, message)
    assert.are.equal(sandbox:grant("user29").access_token, token)
  end)
end)

describe("the lock file", function()
  local lock

  before_each(function()
    lock = fixture.path .. ".lock"
  end)

  -- Both go on, and each finds what the other refreshes.
  local function check_both(one, other)
    for _ = 1, 3 do
      local token = other:run("return client:refresh()")
      eventually(function()
        return one:token() == token
      end)
      token = assert(one:refresh())
      eventually(function()
        return other:run("return client:token()") == token
      end)
    end
    assert.are.equal(0, sandbox:counts().reuses)
    assert.are.equal(0, sandbox:counts().overlaps)
  end

  local HARM = {
    ["is cut short"] = function()
      shell("truncate -s 0 " .. quote(lock))
      return true
    end,
    ["is cut off in the middle of the page"] = function()
      shell("truncate -s 100 " .. quote(lock))
      return true
    end,
    ["is removed"] = function()
      assert(os.remove(lock))
      return true
    end,
    ["is overwritten by something short"] = function()
      helper.write_file(lock, "4711\n")
      return false
    end,
    ["is replaced by somebody else's"] = function()
      helper.write_file(lock .. ".new", ("a line of somebody else's\n"):rep(1000))
      assert(os.rename(lock .. ".new", lock))
      return false
    end,
  }

  for name, harm in helper.sorted(HARM) do
    it("that " .. name .. " under running processes is survived", function()
      local one, other = fixture:client(), start()
      local token = assert(one:token())
      assert.are.equal(token, (other:run("return client:token()")))
      local stays_shared = harm()
      assert.are.equal(token, one:token())
      check_both(one, other)
      assert.are.equal(stays_shared, one:status().shared)
      assert.are.equal(stays_shared, (other:run("return client:status().shared")))
    end)
  end

  it("that is cut short in the middle of a refresh is survived", function()
    local one, other = fixture:client(), start()
    assert(one:token())
    sandbox:faults({ kind = "held" })
    other:send("return client:refresh()")
    eventually(function()
      return fixture:posts() == 2
    end)
    shell("truncate -s 0 " .. quote(lock))
    sandbox:clear_faults()
    local token = other:receive()
    eventually(function()
      return one:token() == token
    end)
    check_both(one, other)
    assert.is_true(one:status().shared)
  end)

  it("that is somebody else's from the start is left alone", function()
    helper.write_file(lock, "4711\n")
    local one, other = fixture:client(), start()
    local token = assert(one:token())
    assert.are.equal(token, (other:run("return client:token()")))
    assert.is_false(one:status().shared)
    assert.is_false((other:run("return client:status().shared")))
    check_both(one, other)
    assert.are.equal("4711\n", helper.read_file(lock))
  end)
end)

describe("a folder that cannot be written", function()
  local plain = helper.without_privileges()

  it("is used without a page, and its token is served", function()
    local record = fixture:store(1000)
    local asked = fixture:posts()
    assert(os.execute("chmod 500 " .. quote(fixture.folder)))
    local out, err = helper.run(plain .. quote(helper.interpreter)
      .. " -e " .. quote([[
      local client = require("lucidauth").new({})
      print(client:token())
      print(client:status().shared, client:status().state, client:status().generation % 2)
    ]]), tokens.env({ LUCID_TOKEN_FILE = fixture.path, LUCID_API_URL = sandbox.url }))
    assert(os.execute("chmod 700 " .. quote(fixture.folder)))
    assert.are.equal(record.access_token, out:match("^[^\n]*"), err)
    assert.is_true(contains(out, "false\tready\t0"), out)
    assert.are.equal(asked, fixture:posts())
  end)
end)

describe("rejections", function()
  it("in a flood make one refresh", function()
    local many = start_many(12)
    tell_all(many, "return client:token()")
    local old
    for _, one in ipairs(many) do
      old = one:receive()
    end
    sandbox:expire()
    tell_all(many, ([[
      local old = %q
      for _ = 1, 200 do
        client:reject(old)
        assert(client:token() ~= old)
      end
      return client:token()
    ]]):format(old))
    local new = sandbox:grant().access_token
    for _, one in ipairs(many) do
      local token = one:receive()
      new = new ~= old and new or token
      assert.are.equal(sandbox:grant().access_token, token)
    end
    assert.are.equal(2, fixture:posts())
    assert.are.equal(1, sandbox:counts().introspections) -- the one before the start
  end)

  it("of the same token a second time change nothing", function()
    local one, other = fixture:client(), start()
    local old = assert(one:token())
    one:reject(old)
    local new = assert(one:token())
    assert.are.equal(new, (other:run("return client:token()")))
    one:reject(old)
    other:run(("client:reject(%q)"):format(old))
    assert.are.equal(new, one:token())
    assert.are.equal(new, (other:run("return client:token()")))
    assert.are.equal(2, fixture:posts())
  end)

  it("hold against any number of others that come later", function()
    local one = fixture:client()
    local old = assert(one:token())
    one:reject(old)
    for i = 1, 10 do
      one:reject("a late one " .. i)
    end
    assert.are_not.equal(old, one:token())
    assert.are.equal(2, fixture:posts())
  end)
end)

describe("an outage", function()
  -- When the server was asked for tokens.
  local function times_of_posts()
    local times = {}
    for _, entry in ipairs(sandbox:log().entries) do
      times[#times + 1] = entry.endpoint == "token" and entry.time or nil
    end
    return times
  end

  -- A crowd of processes, each of which calls very often, makes one request. The
  -- server may be asked again when it has not said how long to wait, but a tenth
  -- of a second after a failure at the soonest.
  local function check_one_post(count, fault)
    fixture:store(100)
    local before = #times_of_posts()
    sandbox:faults(always(fault))
    local many = start_many(count, { refresh_wait = 0.2 })
    local code = [[
      local token
      for _ = 1, 500 do
        token = client:token()
      end
      return token
    ]]
    tell_all(many, code)
    local token = sandbox:grant().access_token
    for _, one in ipairs(many) do
      assert.are.equal(token, (one:receive()))
    end
    local times = times_of_posts()
    for i = before + 2, #times do
      assert.is_nil(fault.headers)
      assert.is_true(times[i] - times[i - 1] >= 0.1, times[i] - times[i - 1])
    end
    assert.is_true(#times > before)
  end

  local OUTAGES = {
    ["that asks to wait"] = { kind = "answer", status = 503, headers = { ["Retry-After"] = "30" } },
    ["that says nothing of the token"] = { kind = "answer", status = 500 },
  }

  for name, fault in helper.sorted(OUTAGES) do
    it(name .. " is asked once by a process, while its token is served", function()
      check_one_post(1, fault)
    end)

    it(name .. " is asked once by all processes", function()
      check_one_post(12, fault)
    end)
  end

  it("ends for all at once when one of them brings new tokens", function()
    fixture:store(-1)
    sandbox:faults(always({ kind = "answer", status = 429, headers = { ["Retry-After"] = "600" } }))
    local many = start_many(6)
    tell_all(many, "return client:token()")
    for _, one in ipairs(many) do
      assert.is_nil((one:receive()))
    end
    sandbox:clear_faults()
    local token = assert(fixture:client():refresh())
    tell_all(many, "return client:token()")
    for _, one in ipairs(many) do
      assert.are.equal(token, (one:receive()))
    end
  end)

  it("ends at once when a login is written into the file", function()
    fixture:store(-1)
    sandbox:faults(always({ kind = "answer", status = 429, headers = { ["Retry-After"] = "600" } }))
    local client = fixture:client()
    assert.are.equal("rate_limited", (select(3, client:token())))
    sandbox:clear_faults()
    sandbox:open_grant({ account = "again" })
    tokens.write(fixture.path, { refresh_token = sandbox:grant("again").refresh_token })
    local token = assert(client:token())
    assert.are.equal(sandbox:grant("again").access_token, token)
  end)

  it("of a dead grant ends at once for a new configured refresh token", function()
    local many = start_many(6)
    local old = many[1]:run("return client:token()")
    sandbox:revoke_all()
    -- one's rejection is heard of by the others, which may have no token to reject any more
    tell_all(many, [[
      local token = client:token()
      if token then
        client:reject(token)
      end
      return select(3, client:token())
    ]])
    for _, one in ipairs(many) do
      assert.are.equal("invalid_grant", (one:receive()))
    end
    local login = sandbox:open_grant({ account = "again" }).refresh_token
    local client = fixture:client({ refresh_token = login })
    client:reject(old)
    local token = assert(client:token())
    tell_all(many, "return client:token()")
    for _, one in ipairs(many) do
      local got, message = one:receive()
      assert.are.equal(token, got, message)
    end
  end)
end)

describe("a clock", function()
  it("that makes a stored token outlive its lifetime is not believed", function()
    local record = tokens.record(tokens.pair(sandbox), 1000)
    record.expires_at = os.time() + 30 * 86400
    record.obtained_at = record.expires_at - 3600
    tokens.write(fixture.path, record)
    local many = start_many(4)
    tell_all(many, "return client:token()")
    local new
    for _, one in ipairs(many) do
      local token = one:receive()
      assert.are_not.equal(record.access_token, token)
      new = new or token
      assert.are.equal(new, token)
    end
    assert.are.equal(2, fixture:posts())
  end)

  it("of a record from the future still lets its token be served in an outage", function()
    local record = tokens.record(tokens.pair(sandbox), 7200)
    tokens.write(fixture.path, record)
    sandbox:faults(always({ kind = "close" }))
    sandbox:faults(always({ kind = "close", endpoint = "introspect" }))
    local client = fixture:client({ timeout = helper.SHORT })
    assert.are.equal(record.access_token, client:token())
    local left = client:status().expires_in
    assert.is_true(left > 3500 and left <= 3600, left)
  end)
end)
