-- A storage made of Lua functions, which may yield and may fail.


local cjson = require("cjson")
local codec = require("lucidauth.sandbox.codec")
local core = require("lucidauth.core")
local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local contains = helper.contains
-- what busted has for globals is looked up by Lua functions, at every use
local getmetatable, pairs, setmetatable, type = getmetatable, pairs, setmetatable, type
local getinfo, sethook = debug.getinfo, debug.sethook

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

local records, calls

local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local result = setmetatable({}, getmetatable(value))
  for name, item in pairs(value) do
    result[name] = copy(item)
  end
  return result
end

-- A storage as a program would write it; `changes` replace single functions, and `before`
-- runs ahead of each of them.
local function storage_with(changes, before)
  local held = {}
  local storage = {
    load = function(account)
      return copy(records[account])
    end,
    save = function(account, record)
      records[account] = copy(record)
      return true
    end,
    lock = function(account)
      if held[account] then
        return false
      end
      held[account] = true
      return true
    end,
    unlock = function(account)
      held[account] = nil
    end,
  }
  for name, replacement in pairs(changes or {}) do
    storage[name] = replacement or nil
  end
  for name, body in pairs(storage) do
    storage[name] = function(...)
      calls[#calls + 1] = name
      if before then
        before(name)
      end
      return body(...)
    end
  end
  return storage
end

local function options_with(storage, changes)
  return fixture:options(helper.merge({ storage = storage }, changes))
end

local function client_with(storage, changes)
  return fixture:client(helper.merge({ storage = storage }, changes))
end

local function names_of_calls()
  return table.concat(calls, " ")
end

-- Resumes until the coroutine is done; returns what the last resume did.
local function finish(thread, ...)
  local function go_on(...)
    if coroutine.status(thread) == "dead" then
      return ...
    end
    return finish(thread)
  end
  return go_on(coroutine.resume(thread, ...))
end

-- Resumes until a storage's function named `name` is about to run the
-- `count`-th time.
local function run_to(thread, name, count)
  local left = count or 1
  while left > 0 do
    local ok, reached = coroutine.resume(thread)
    assert(ok, reached)
    assert(coroutine.status(thread) == "suspended", "it never came to " .. name)
    left = reached == name and left - 1 or left
  end
end

local function yielding_storage(changes)
  return storage_with(changes, coroutine.yield)
end

before_each(function()
  records, calls = {}, {}
end)

describe("a storage in Lua", function()
  it("is asked in the order that keeps tokens safe", function()
    local marks = {}
    local storage = storage_with()
    local save = storage.save
    storage.save = function(account, record)
      marks[#marks + 1] = record.pending and "marked" or record.access_token
      return save(account, record)
    end
    local token = assert(client_with(storage):token())
    assert.are.equal("load lock load save load save load unlock", names_of_calls())
    assert.are.same({ "marked", token }, marks)
    assert.is_true(tokens.works(sandbox, token))
  end)

  it("needs no lock", function()
    local client = client_with(storage_with({ lock = false, unlock = false }))
    local token = assert(client:token())
    assert.are.equal("load load save load save load", names_of_calls())
    assert.are.equal(token, records.default.access_token)
  end)

  it("is left alone while the token is good", function()
    local client = client_with(storage_with())
    local token = assert(client:token())
    calls = {}
    for _ = 1, 100 do
      assert.are.equal(token, client:token())
    end
    assert.are.equal("", names_of_calls())
    assert.are.equal(1, fixture:posts())
  end)

  it("gives one value, the token and nothing else", function()
    local client = client_with(storage_with())
    assert.are.equal(1, select("#", client:token()))
    assert.are.equal(1, select("#", client:token()))
    assert.are.equal(1, select("#", client:refresh()))
  end)

  it("serves the next client", function()
    local token = assert(client_with(storage_with()):token())
    calls = {}
    assert.are.equal(token, client_with(storage_with()):token())
    assert.are.equal("load", names_of_calls())
    assert.are.equal(1, fixture:posts())
  end)

  it("serves refresh, reject, authorization and status as well", function()
    local client = client_with(storage_with())
    local first = assert(client:refresh())
    assert.are.equal("Bearer " .. first, client:authorization())
    client:reject(first)
    assert.are.equal("empty", client:status().state)
    local second = assert(client:token())
    assert.are_not.equal(first, second)
    assert.are.equal("ready", client:status().state)
    assert.are.equal(2, fixture:posts())
  end)

  it("is told which account is meant", function()
    local asked = {}
    local storage = storage_with({
      load = function(account)
        asked[#asked + 1] = account
        return records[account]
      end,
    })
    local client = client_with(storage)
    assert(client:token())
    sandbox:open_grant({ account = "alice" })
    records.alice = tokens.record(tokens.pair(sandbox, "alice"), -1)
    local token = assert(client:token("alice"))
    assert.are.equal(token, records.alice.access_token)
    assert.are_not.equal(token, records.default.access_token)
    assert.are.same({
      "default", "default", "default", "default", "alice", "alice", "alice", "alice",
    }, asked)
    assert.are.equal("alice", fixture.events[#fixture.events].account)
  end)

  it("gets plain tables, and has them back as they were", function()
    local record = tokens.record(tokens.pair(sandbox), -1)
    record.extra = {
      list = { 1, 2.5, { "three", { four = false } } },
      text = "slash / quote \" ü \240\159\140\141",
      number = 1763930000123,
      yes = true,
    }
    records.default = record
    sandbox:faults({
      kind = "transform",
      raw = { deep = '{"a":[{"b":[true,null,"c"]}],"id":12345678901234}' },
    })
    local client = client_with(storage_with())
    local first = assert(client:token())
    assert.are.same(record.extra, records.default.extra)
    local deep = records.default.deep
    assert.are.equal(true, deep.a[1].b[1])
    assert.are.equal("c", deep.a[1].b[3])
    assert.are.equal(12345678901234, deep.id)
    assert.are_not.equal(first, assert(client:refresh()))
    assert.are.same(record.extra, records.default.extra)
    assert.are.same(deep, records.default.deep)
  end)

  it("has side fields back as the server sent them", function()
    local sent = {
      none = "{}",
      lists = '[[1],[[true,"x"]],{"a":[0]}]',
      whole = "12345678901234",
      negative = "-12345678901234",
      fraction = "0.25",
      text = [["a \\ b \" c \u0001 d / e"]],
      odd = [["\\u0041"]],
      -- where lua-cjson can tell a list that is empty from an object
      empty = cjson.array_mt and "[]" or nil,
    }
    sandbox:faults({ kind = "transform", raw = sent })
    assert(client_with(storage_with()):token())
    assert(client_with(storage_with()):refresh())
    for name, text in pairs(sent) do
      assert.are.same(cjson.decode(text), records.default[name], name)
    end
    if sent.empty then
      assert.are.equal("[]", cjson.encode(records.default.empty))
    end
  end)

  it("keeps the fraction of a second in what it keeps", function()
    assert(client_with(storage_with()):token())
    local before = records.default.expires_at
    local status = client_with(storage_with())
    assert(status:token())
    assert.are.equal(before, records.default.expires_at)
    assert.is_true(before > 1e9 and before < 1e11)
  end)

  it("can read again what no number holds", function()
    sandbox:faults({ kind = "transform", raw = { expires_in = "1e400", other = "-1e999" } })
    local token = assert(client_with(storage_with()):token())
    assert.are.equal(token, client_with(storage_with()):token())
    assert(client_with(storage_with()):refresh())
    assert.are.equal(2, fixture:posts())
  end)

  it("may change the tables it gets", function()
    local storage = storage_with({
      save = function(account, record)
        records[account] = copy(record)
        record.access_token, record.refresh_token = nil, nil
      end,
    })
    local client = client_with(storage)
    local token = assert(client:token())
    assert.are.equal(token, records.default.access_token)
    assert.are.equal(token, client:token())
  end)

  it("may be a database of JSON texts", function()
    local texts = {}
    local storage = {
      load = function(account)
        return texts[account] and codec.decode_json(texts[account])
      end,
      save = function(account, record)
        texts[account] = codec.encode_json(record)
      end,
    }
    local token = assert(client_with(storage):token())
    assert.are.equal(token, client_with(storage):token())
    assert.are_not.equal(token, assert(client_with(storage):refresh()))
    assert.are.equal(2, fixture:posts())
  end)
end)

describe("a lock in Lua", function()
  it("is waited for, with the storage's own way to sleep", function()
    local refusals, slept = 5, {}
    local client = client_with(storage_with({
      lock = function()
        refusals = refusals - 1
        return refusals < 0
      end,
      sleep = function(seconds)
        slept[#slept + 1] = seconds
      end,
    }))
    local token = assert(client:token())
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(5, #slept)
    for _, seconds in ipairs(slept) do
      assert.is_true(seconds > 0 and seconds <= 0.05)
    end
  end)

  it("is waited for without one", function()
    local refusals = 3
    local client = client_with(storage_with({
      lock = function()
        refusals = refusals - 1
        return refusals < 0
      end,
    }))
    assert(client:token())
    assert.are.equal(-1, refusals)
  end)

  it("is waited for even if the storage's sleep fails", function()
    local refusals = 2
    local client = client_with(storage_with({
      lock = function()
        refusals = refusals - 1
        return refusals < 0
      end,
      sleep = function()
        error("no sleep")
      end,
    }))
    assert(client:token())
  end)

  it("brings what its holder has saved meanwhile", function()
    local pair
    local client = client_with(storage_with({
      lock = function()
        if not pair then
          pair = tokens.pair(sandbox)
          records.default = tokens.record(pair, 3000)
          return false
        end
        return true
      end,
    }))
    local token = assert(client:token())
    assert.are.equal(pair.access_token, token)
    assert.are.equal(1, fixture:posts())
  end)

  it("that never comes free is reported, and nothing is spent", function()
    local client = client_with(storage_with({
      lock = function()
        return false
      end,
    }), { timeout = 0.1, lock_timeout = 2 })
    fixture:assert_failure("timeout", client:token())
    local code
    repeat
      code = select(3, client:token())
    until code ~= "timeout"
    assert.are.equal("locked", code)
    assert.are.equal(0, fixture:posts())
    assert.is_false(contains(names_of_calls(), "unlock"))
  end)

  -- The results of database drivers when somebody else holds the key.
  local null = cjson.null
  for what, busy in pairs({
    ["false"] = function() return false end,
    ["nil"] = function() return nil end,
    ["nil and nil"] = function() return nil, nil end,
    ["false and nil"] = function() return false, nil end,
    ["a null"] = function() return null end,
  }) do
    it("is somebody else's when " .. what .. " is returned", function()
      local client = client_with(storage_with({ lock = busy }), { lock_timeout = 0.05 })
      local token, message, code = client:token()
      fixture:assert_failure("locked", token, message, code)
      assert.are.equal(0, fixture:posts())
      assert.is_false(contains(names_of_calls(), "unlock"))
    end)
  end

  for what, taken in pairs({
    ["true"] = function() return true end,
    ["true and more"] = function() return true, "exit", 0 end,
    ["a text"] = function() return "OK" end,
    ["a table"] = function() return {}, "more" end,
  }) do
    it("is taken when " .. what .. " is returned", function()
      assert(client_with(storage_with({ lock = taken })):token())
      assert.are.equal("load lock load save load save load unlock", names_of_calls())
    end)
  end

  -- One would have to guess; a guess that is wrong spends a token twice.
  for what, unclear in pairs({
    ["no value"] = function() end,
    ["a number"] = function() return 0 end,
    ["a userdata"] = function() return io.stdout end,
  }) do
    it("says neither when " .. what .. " is returned", function()
      local client = client_with(storage_with({ lock = unclear }))
      local token, message, code = client:token()
      fixture:assert_failure("storage", token, message, code)
      assert.is_true(contains(message, "function lock"), message)
      assert.is_true(contains(message, what), message)
      assert.are.equal(0, fixture:posts())
      assert.is_false(contains(names_of_calls(), "unlock"))
    end)
  end

  it("is given back after a failure, too", function()
    local client = client_with(storage_with(), { client_secret = "wrong" })
    fixture:assert_failure("invalid_client", client:token())
    assert.are.equal("unlock", calls[#calls])
    assert(client_with(storage_with()):token())
  end)
end)

describe("a storage's function that fails", function()
  local function raises(value)
    return function()
      error(value)
    end
  end

  local function returns(...)
    local results, count = { ... }, select("#", ...)
    return function()
      return (table.unpack or unpack)(results, 1, count)
    end
  end

  -- A fault must not stop anything else: each is tried, and then all works again.
  local function assert_stopped(name, body, part)
    local before = fixture:posts()
    local client = client_with(storage_with({ [name] = body }))
    local token, message, code = client:token()
    fixture:assert_failure("storage", token, message, code)
    assert.is_true(contains(message, name), message)
    assert.is_true(contains(message, part or ""), message)
    assert.are.equal(before, fixture:posts())
    assert.is_true(tokens.works(sandbox, (assert(client_with(storage_with()):token()))))
  end

  local ways = {
    ["returns nil and why"] = { returns(nil, "the disk is on fire"), "the disk is on fire" },
    ["returns false and why"] = { returns(false, "the disk is on fire"), "the disk is on fire" },
    ["raises a text"] = { raises("the disk is on fire"), "the disk is on fire" },
    ["raises a table"] = { raises({ code = 42 }), "table" },
    ["raises nil"] = { raises(nil) },
    ["raises an object whose text cannot be had"] = {
      raises(setmetatable({}, { __tostring = raises("no text") })),
    },
    ["raises a very long text"] = { raises(("long "):rep(1000)), "long long" },
    ["yields where nothing can"] = { coroutine.yield, "yield" },
  }

  for _, name in ipairs({ "load", "lock", "save" }) do
    for way, case in pairs(ways) do
      it("is named: " .. name .. " " .. way, function()
        assert_stopped(name, case[1], case[2])
      end)
    end
  end

  it("is named: save returns false", function()
    assert_stopped("save", returns(false))
  end)

  for kind, value in pairs({
    boolean = false, number = 42, string = "{}", ["function"] = print,
  }) do
    it("is named: load returns a " .. kind, function()
      assert_stopped("load", returns(value), kind)
    end)
  end

  it("is named: load returns a table that is no JSON", function()
    assert_stopped("load", returns({ access_token = print }), "load")
    local circle = {}
    circle.circle = circle
    assert_stopped("load", returns(circle), "load")
  end)

  it("is named: load returns a table that is no record", function()
    local client = client_with(storage_with({ load = returns({ colour = "blue" }) }))
    local token, message, code = client:token()
    fixture:assert_failure("storage", token, message, code)
    assert.is_true(contains(message, "damaged"))
    assert.are.equal(0, fixture:posts())
    assert.are.same({}, records)
  end)

  it("is named: save returns a null", function()
    assert_stopped("save", returns(cjson.null))
  end)

  it("is forgiven: unlock", function()
    for _, way in ipairs({ raises("no"), returns(nil, "no"), returns(false) }) do
      local client = client_with(storage_with({ unlock = way }))
      assert(client:refresh())
    end
    assert.are.equal(3, sandbox:counts().rotations)
  end)

  it("does not stop a token that lives from being served", function()
    local pair = tokens.pair(sandbox)
    records.default = tokens.record(pair, 60)
    local client = client_with(storage_with({ lock = raises("broken lock") }))
    assert.are.equal(pair.access_token, client:token())
    assert.are.equal("refresh_failed", fixture:names_of_events())
    assert.are.equal("storage", fixture.events[1].code)
    assert.is_true(contains(fixture.events[1].message, "broken lock"))
  end)

  it("tells no secret: save", function()
    for _, quote in ipairs({ codec.encode_json, function(record)
      return record.refresh_token .. "/" .. tostring(record.access_token)
    end }) do
      records.default = tokens.record(tokens.pair(sandbox), -1)
      for _, way in ipairs({ error, function(text)
        return nil, text
      end }) do
        local client = client_with(storage_with({
          save = function(_, record)
            return way("cannot insert " .. quote(record))
          end,
        }))
        local token, message, code = client:token()
        fixture:assert_failure("storage", token, message, code)
        assert.is_true(contains(message, "cannot insert"))
      end
    end
  end)

  it("tells no secret: load, of a record that nobody has seen yet", function()
    local pair = tokens.pair(sandbox)
    for _, text in ipairs({
      codec.encode_json(tokens.record(pair, 100)),
      ("{ access_token = %q, refresh_token = %q }"):format(pair.access_token, pair.refresh_token),
      ("access_token: %s, refresh_token: %s"):format(pair.access_token, pair.refresh_token),
    }) do
      for _, way in ipairs({ error, function(reason)
        return nil, reason
      end }) do
        local client = client_with(storage_with({
          load = function()
            return way("not understood: " .. text)
          end,
        }))
        local token, message, code = client:token()
        fixture:assert_failure("storage", token, message, code)
        assert.is_true(contains(message, "not understood"))
      end
    end
  end)
end)

-- A function may end with a call that has more to say than that it worked.
describe("what stands behind a true value", function()
  local ways = {
    ["os.execute"] = function() return os.execute("true") end,
    ["a pipe's close"] = function() return io.popen("true"):close() end,
    ["pcall"] = function() return pcall(function() return "row 1" end) end,
  }

  for what, last_call in pairs(ways) do
    it("is no failure of save: " .. what, function()
      local client = client_with(storage_with({
        save = function(account, record)
          records[account] = copy(record)
          return last_call()
        end,
      }))
      local token = assert(client:token())
      assert.are.equal(token, records.default.access_token)
      assert.is_false(client:status().unsaved)
      assert.are.equal("load lock load save load save load unlock", names_of_calls())
    end)
  end

  it("is no failure of load", function()
    local pair = tokens.pair(sandbox)
    local client = client_with(storage_with({
      load = function()
        return tokens.record(pair, 3000), "from the second server"
      end,
    }))
    assert.are.equal(pair.access_token, client:token())
  end)

  it("is not looked at, but what stands behind false is", function()
    local client = client_with(storage_with({
      save = function()
        return pcall(error, "the disk is on fire", 0)
      end,
    }))
    local token, message, code = client:token()
    fixture:assert_failure("storage", token, message, code)
    assert.is_true(contains(message, "the disk is on fire"), message)
  end)
end)

local broken

-- Fails from the second save on, the one after the POST, as long as `broken`.
local function breaking_storage(before)
  local saves = 0
  broken = true
  return storage_with({
    save = function(account, record)
      saves = saves + 1
      if saves > 1 and broken then
        return nil, "out of order"
      end
      records[account] = copy(record)
      return true
    end,
  }, before)
end

describe("new tokens that cannot be saved", function()
  -- or the client would stay open, and try again in the middle of another test
  after_each(function()
    broken = false
  end)

  it("are served, and told of", function()
    local client = client_with(breaking_storage())
    local token = assert(client:token())
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal("refreshed save_failed", fixture:names_of_events())
    assert.are.equal("storage", fixture.events[2].code)
    assert.is_true(contains(fixture.events[2].message, "out of order"))
    fixture:assert_no_secret(fixture.events[2].message)
    assert.is_true(client:status().unsaved)
    assert.is_not_nil(records.default.pending)
    assert.is_false(contains(names_of_calls(), "unlock"))
  end)

  it("are saved at the next call that can", function()
    local client = client_with(breaking_storage())
    local token = assert(client:token())
    assert.are.equal(token, client:token())
    assert.is_true(client:status().unsaved)
    broken = false
    fixture.events = {}
    assert.are.equal(token, client:token())
    assert.are.equal("saved", fixture:names_of_events())
    assert.is_false(client:status().unsaved)
    assert.are.equal(token, records.default.access_token)
    assert.is_nil(records.default.pending)
    assert.are.equal("unlock", calls[#calls])
    assert.are.equal(1, fixture:posts())
  end)

  it("are the ones that the next refresh goes on from", function()
    local client = client_with(breaking_storage())
    assert(client:token())
    broken = false
    local token = assert(client:refresh())
    assert.are.equal(token, client:token())
    assert.are.equal(token, records.default.access_token)
    assert.are.equal(2, sandbox:counts().rotations)
    assert.are.equal(0, sandbox:counts().reuses)
  end)

  it("stop no refresh() from failing, and stay", function()
    local client = client_with(breaking_storage())
    local token = assert(client:token())
    fixture:assert_failure("storage", client:refresh())
    assert.are.equal(token, client:token())
    broken = false
    assert(client:refresh())
    assert.are.equal(0, sandbox:counts().reuses)
  end)
end)

describe("a client that is closed", function()
  local storage

  before_each(function()
    storage = breaking_storage()
  end)

  after_each(function()
    broken = false
  end)

  local function assert_stored(token)
    assert.are.equal(token, records.default.access_token)
    assert.is_nil(records.default.pending)
    assert.are.equal("unlock", calls[#calls])
    assert.are.equal(token, client_with(storage):token())
    assert.are.equal(1, sandbox:counts().introspections) -- the one before the start
  end

  it("saves what could not be saved before", function()
    local client = client_with(storage)
    local token = assert(client:token())
    broken = false
    fixture.events = {}
    assert.is_true(client:close())
    assert.are.equal("saved", fixture:names_of_events())
    assert_stored(token)
    assert.is_true(client:close())
  end)

  it("stays open as long as it cannot", function()
    local client = client_with(storage)
    local token = assert(client:token())
    for _ = 1, 2 do
      local closed, message, code = client:close()
      fixture:assert_failure("storage", closed, message, code)
      assert.is_true(contains(message, "out of order"), message)
      assert.are.equal(token, client:token())
      assert.is_true(client:status().unsaved)
    end
    broken = false
    assert.is_true(client:close())
    assert_stored(token)
  end)

  it("saves them for each of its accounts", function()
    for _, name in ipairs({ "alice", "bob" }) do
      sandbox:open_grant({ account = name })
      records[name] = { refresh_token = sandbox:grant(name).refresh_token }
    end
    local down = {}
    local client = client_with(storage_with({
      save = function(account, record)
        if down[account] then
          return nil, "out of order"
        end
        records[account] = copy(record)
        down[account] = broken or nil
        return true
      end,
    }))
    local alice, bob = assert(client:token("alice")), assert(client:token("bob"))
    down.alice, broken = nil, false
    fixture:assert_failure("storage", client:close())
    assert.are.equal(alice, records.alice.access_token)
    assert.are_not.equal(bob, records.bob.access_token)
    down.bob = nil
    assert.is_true(client:close())
    assert.are.equal(bob, records.bob.access_token)
  end)

  it("stays the module's own as long as it cannot", function()
    lucid.configure(options_with(storage))
    local token = assert(lucid.token())
    fixture:assert_failure("storage", lucid.close())
    assert.are.equal(token, lucid.token())
    fixture:assert_failure("storage", lucid.configure(options_with(storage_with())))
    assert.are.equal(token, lucid.token())
    broken = false
    assert.is_true(lucid.configure(options_with(storage)))
    assert_stored(token)
  end)

  it("brings home what another coroutine has in the air", function()
    local client = client_with(yielding_storage())
    local thread = coroutine.create(function()
      return client:token()
    end)
    run_to(thread, "save", 2)
    local ok, closed, message = finish(coroutine.create(function()
      return client:close()
    end))
    assert.is_true(ok, closed)
    assert.is_true(closed, message)
    local token = records.default.access_token
    assert.is_true(tokens.works(sandbox, token))
    assert.is_nil(records.default.pending)
    ok, closed = finish(thread)
    assert.is_true(ok, closed)
    assert.are.equal(token, records.default.access_token)
    assert.are.equal(1, fixture:posts())
    assert(client_with(storage_with()):refresh())
    assert.are.equal(1, sandbox:counts().introspections) -- the one before the start
  end)

  it("is closed once by two coroutines, and begins nothing meanwhile", function()
    local client = client_with(yielding_storage())
    local thread = coroutine.create(function()
      return client:token()
    end)
    run_to(thread, "save", 2)
    local closing = coroutine.create(function()
      return client:close()
    end)
    run_to(closing, "save")
    fixture:assert_failure("not_ready", client:close())
    fixture:assert_failure("not_ready", client:refresh())
    assert.are.same({ true, true }, { finish(closing) })
    assert.is_true(client:close())
    assert.are.equal(1, fixture:posts())
    assert.is_nil(records.default.pending)
  end)

  for _, step in ipairs({ "load 1", "lock 1", "load 2", "save 1", "unlock 1" }) do
    it("leaves no lock behind: " .. step, function()
      local body = storage_with()
      local shared = {}
      for name, call in pairs(body) do
        shared[name] = function(...)
          if coroutine.running() and shared.yields then
            coroutine.yield(name)
          end
          return call(...)
        end
      end
      local client = client_with(helper.merge(shared))
      shared.yields = true
      local name, count = step:match("^(%l+) (%d)$")
      local thread = coroutine.create(function()
        return client:token()
      end)
      run_to(thread, name, tonumber(count))
      shared.yields = false
      assert.is_true(client:close())
      finish(thread)
      local next_client = client_with(body)
      assert(next_client:refresh())
      assert.are.equal(0, sandbox:counts().reuses)
    end)
  end

  it("is not needed for a last try when the program ends", function()
    local path = fixture.folder .. "/record"
    local out, err, status = helper.run_lua(([[
      local cjson, path, saves = require("cjson"), %q, 0
      local client = require("lucidauth").new({ storage = {
        load = function()
          local file = io.open(path)
          if file then
            local text = file:read("*a")
            file:close()
            return cjson.decode(text)
          end
        end,
        save = function(_, record)
          saves = saves + 1
          if saves == 2 then return nil, "out of order" end
          local file = assert(io.open(path, "w"))
          file:write(cjson.encode(record))
          file:close()
          return true
        end,
      } })
      print(assert(client:token()), client:status().unsaved)
    ]]):format(path), fixture:env())
    assert.are.equal("", err)
    assert.are.equal(0, status)
    local token, unsaved = out:match("^(%S+)%s+(%S+)")
    assert.are.equal("true", unsaved)
    local record = codec.decode_json((helper.read_file(path)))
    assert.are.equal(token, record.access_token)
    assert.is_nil(record.pending)
  end)
end)

describe("a storage that yields", function()
  it("serves every function of a client in a coroutine", function()
    local client = client_with(yielding_storage())
    local ok, first, second, authorization = finish(coroutine.create(function()
      local token = assert(client:token())
      local new = assert(client:refresh())
      client:reject(new)
      return token, new, client:authorization()
    end))
    assert.is_true(ok, first)
    assert.are_not.equal(first, second)
    assert.is_true(tokens.works(sandbox, (authorization:gsub("^Bearer ", ""))))
    assert.are.equal(3, sandbox:counts().rotations)
  end)

  it("serves the functions of the module, too", function()
    lucid.configure(options_with(yielding_storage()))
    local ok, token, again = finish(coroutine.create(function()
      return lucid.token(), lucid.token()
    end))
    assert.is_true(ok, token)
    assert.are.equal(token, again)
    assert.is_true(tokens.works(sandbox, token))
    ok, token = finish(coroutine.wrap(function()
      return coroutine.create(lucid.refresh)
    end)())
    assert.is_true(ok, token)
    assert.are.equal(records.default.access_token, token)
  end)

  it("gives a coroutine what it gives the main program", function()
    lucid.configure(options_with(yielding_storage()))
    local ok, count = finish(coroutine.create(function()
      return select("#", lucid.token())
    end))
    assert.is_true(ok, count)
    assert.are.equal(1, count)
    local _, token, message, code = finish(coroutine.create(function()
      records, sandbox.at = {}, nil
      lucid.configure(options_with(yielding_storage({
        load = function()
          return nil, "gone"
        end,
      })))
      return lucid.token()
    end))
    fixture:assert_failure("storage", token, message, code)
  end)

  it("may sleep by yielding", function()
    local refusals, naps = 3, 0
    local client = client_with(yielding_storage({
      lock = function()
        refusals = refusals - 1
        return refusals < 0
      end,
      sleep = function(seconds)
        naps = naps + 1
        coroutine.yield(seconds)
      end,
    }))
    local ok, token = finish(coroutine.create(function()
      return client:token()
    end))
    assert.is_true(ok, token)
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(3, naps)
  end)

  it("may fail after it has yielded", function()
    local client = client_with(yielding_storage({
      load = function()
        error("lost the connection")
      end,
    }))
    local ok, token, message, code = finish(coroutine.create(function()
      return client:token()
    end))
    assert.is_true(ok, token)
    fixture:assert_failure("storage", token, message, code)
    assert.is_true(contains(message, "lost the connection"))
  end)

  for what, token_of in pairs({
    ["of a client"] = function(storage)
      local client = client_with(storage)
      return function(account)
        return client:token(account)
      end
    end,
    ["of the module"] = function(storage)
      lucid.configure(options_with(storage))
      return function(account)
        return lucid.token(account)
      end
    end,
  }) do
    it("makes one refresh for two coroutines " .. what, function()
      local get = token_of(yielding_storage())
      local one, other = coroutine.create(get), coroutine.create(get)
      run_to(one, "save")
      local ok, token, message, code = coroutine.resume(other)
      assert.is_true(ok)
      assert.are.equal("dead", coroutine.status(other))
      fixture:assert_failure("not_ready", token, message, code)
      ok, token = finish(one)
      assert.is_true(ok, token)
      assert.is_true(tokens.works(sandbox, token))
      assert.are.equal(token, get())
      assert.are.equal(1, fixture:posts())
    end)

    it("has the living token for a second coroutine " .. what, function()
      local pair = tokens.pair(sandbox)
      records.default = tokens.record(pair, 60)
      local get = token_of(yielding_storage())
      -- The first call finds the server slow to take more; the token is in use.
      sandbox:faults({ kind = "answer", status = 403,
        body = { error = "invalid_client" } })
      local ok, token = finish(coroutine.create(get))
      assert.is_true(ok, token)
      assert.are.equal(pair.access_token, token)
    end)

    it("keeps accounts apart " .. what, function()
      sandbox:open_grant({ account = "alice" })
      sandbox:open_grant({ account = "bob" })
      for _, name in ipairs({ "alice", "bob" }) do
        records[name] = { refresh_token = sandbox:grant(name).refresh_token }
      end
      local get = token_of(yielding_storage())
      local alice, bob = coroutine.create(get), coroutine.create(get)
      local running = { alice = alice, bob = bob }
      local got = {}
      while next(running) do
        for name, thread in pairs(running) do
          local ok, token, message = coroutine.resume(thread, name)
          assert(ok, token)
          if coroutine.status(thread) == "dead" then
            got[name] = assert(token, message)
            running[name] = nil
          end
        end
      end
      assert.are.equal(sandbox:grant("alice").access_token, got.alice)
      assert.are.equal(sandbox:grant("bob").access_token, got.bob)
      assert.are.equal(2, fixture:posts())
    end)
  end

  it("has the living token for others while refresh() is under way", function()
    local client = client_with(yielding_storage())
    local _, old = finish(coroutine.create(function()
      return client:token()
    end))
    local refresh = coroutine.create(function()
      return client:refresh()
    end)
    run_to(refresh, "save", 2)
    local thread = coroutine.create(function()
      return client:token()
    end)
    local ok, token = coroutine.resume(thread)
    assert.is_true(ok)
    assert.are.equal("dead", coroutine.status(thread))
    assert.are.equal(old, token)
    local _, new = finish(refresh)
    assert.are_not.equal(old, new)
    assert.are.equal(new, client:token())
  end)
end)

describe("a coroutine that nobody resumes", function()
  -- Leaves a call at the `count`-th time that `name` is about to run.
  local function abandon(client, name, count)
    local thread = coroutine.create(function()
      return client:token()
    end)
    run_to(thread, name, count)
    thread = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end

  local function storage_without_lock()
    return yielding_storage({ lock = false, unlock = false })
  end

  local function assert_works_again(client)
    local ok, token, message = finish(coroutine.create(function()
      return client:token()
    end))
    assert.is_true(ok, token)
    assert.is_string(token, message)
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(token, records.default.access_token)
    assert.is_nil(records.default.pending)
    assert.are.equal(1, sandbox:counts().rotations)
    assert.are.equal(0, sandbox:counts().reuses)
  end

  it("keeps the flight, but not the caller, until it is collected", function()
    local client = client_with(storage_without_lock())
    local thread = coroutine.create(function()
      return client:token()
    end)
    run_to(thread, "load")
    fixture:assert_failure("not_ready", client:token())
    thread = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert_works_again(client)
  end)

  for when, call in helper.sorted({
    ["while loading"] = { "load", 1 },
    ["while loading under the lock"] = { "load", 2 },
    ["before the mark is saved"] = { "save", 1 },
  }) do
    it("leaves things sane " .. when, function()
      local client = client_with(storage_without_lock())
      abandon(client, call[1], call[2])
      assert_works_again(client)
      assert.are.equal(1, fixture:posts())
    end)
  end

  it("leaves things sane after the mark was saved", function()
    local storage = storage_without_lock()
    local save = storage.save
    storage.save = function(...)
      local results = { save(...) }
      coroutine.yield("saved")
      return (table.unpack or unpack)(results)
    end
    local client = client_with(storage)
    abandon(client, "saved", 1)
    assert.is_not_nil(records.default.pending)
    assert_works_again(client)
  end)

  it("loses no tokens that were not saved yet", function()
    local client = client_with(storage_without_lock())
    abandon(client, "save", 2)
    assert.are.equal(1, fixture:posts())
    assert.is_not_nil(records.default.pending)
    assert_works_again(client)
    assert.are.equal(1, fixture:posts())
  end)

  it("leaves things sane while unlocking", function()
    local client = client_with(yielding_storage())
    abandon(client, "unlock", 1)
    assert_works_again(client)
    assert.are.equal(1, fixture:posts())
  end)

  it("gives its account back while the lock is held", function()
    local client = client_with(yielding_storage())
    abandon(client, "load", 2)
    assert_works_again(client)
    assert.are.equal("unlock", calls[#calls])
    assert(client_with(storage_with()):refresh())
  end)

  if coroutine.close then
    it("gives its account back when it is closed", function()
      for _, step in ipairs({ "load", "lock", "save" }) do
        records = {}
        sandbox:reset()
        local client = client_with(yielding_storage({ lock = false, unlock = false }))
        local thread = coroutine.create(function()
          return client:token()
        end)
        run_to(thread, step == "lock" and "load" or step, step == "lock" and 2 or 1)
        fixture:assert_failure("not_ready", client:token())
        assert(coroutine.close(thread))
        assert_works_again(client)
      end
    end)
  end

  -- A coroutine as copas or a framework's time limit leaves it behind: nobody resumes
  -- it, and somebody still knows it. Between two calls the clock of waits, which is
  -- ours, goes on by this many seconds.
  local TICK = 0.5

  local function call_until_it_works(client, tick, most)
    for seconds = TICK, most, TICK do
      tick()
      local _, token, message, code = finish(coroutine.create(function()
        return client:token()
      end))
      if token then
        return token, seconds
      end
      assert.are.equal("not_ready", code, message)
    end
    error("its account was not given back")
  end

  for _, step in ipairs({ "load 1", "lock 1", "load 2", "save 1", "save 2" }) do
    it("gives its account back in time: " .. step, function()
      local name, count = step:match("^(%l+) (%d)$")
      local ran, clock, now = core.ran, core.clock_of_waits(), 1000
      core.ran = function(within)
        return clock(within, now)
      end
      finally(function()
        core.ran = ran
      end)
      local timeout = 30
      local client = client_with(yielding_storage(), { timeout = timeout })
      local thread = coroutine.create(function()
        return client:token()
      end)
      run_to(thread, name, tonumber(count))
      fixture:assert_failure("not_ready", client:token())
      local token, seconds = call_until_it_works(client, function()
        now = now + TICK
      end, 4 * timeout)
      assert.is_true(seconds >= 2 * timeout and seconds <= 2 * timeout + 2 * TICK, seconds)
      assert.is_true(tokens.works(sandbox, token))
      assert.are.equal(1, fixture:posts())
      assert.are.equal(token, records.default.access_token)

      -- and should it be resumed after all, it does no harm
      local held = select(2, finish(thread))
      assert.is_true(held == nil or held == token)
      assert.are.equal(token, records.default.access_token)
      assert.is_nil(records.default.pending)
      assert.are.equal(1, fixture:posts())
      assert.are.equal(0, sandbox:counts().reuses)
      assert(client_with(storage_with()):refresh())
    end)
  end

  it("is not given up while it gets on, however long it takes", function()
    local refusals = 40
    local client = client_with(yielding_storage({
      lock = function()
        refusals = refusals - 1
        return refusals < 0
      end,
      sleep = coroutine.yield,
    }), { timeout = helper.LONG })
    local thread = coroutine.create(function()
      return client:token()
    end)
    while coroutine.status(thread) == "suspended" do
      assert(coroutine.resume(thread))
      if coroutine.status(thread) == "suspended" then
        fixture:assert_failure("not_ready", client:token())
      end
    end
    assert.are.equal(1, fixture:posts())
  end)

  describe("that was stopped with its process", function()
    local ran = core.ran
    local now

    before_each(function()
      now = 1000
      core.ran = function()
        return now
      end
    end)

    after_each(function()
      core.ran = ran
    end)

    local function stopped_in(name, count)
      local client = client_with(yielding_storage(), { timeout = helper.LONG })
      local thread = coroutine.create(function()
        return client:token()
      end)
      run_to(thread, name, count)
      now = now + 3600
      fixture:assert_failure("not_ready", client:token())
      return client, thread
    end

    for _, step in ipairs({ "load 1", "lock 1", "load 2", "save 1", "save 2" }) do
      it("goes on when the process does: " .. step, function()
        local name, count = step:match("^(%l+) (%d)$")
        local client, thread = stopped_in(name, tonumber(count))
        local ok, token, message = finish(thread)
        assert.is_true(ok, token)
        assert.is_string(token, message)
        assert.are.equal(token, client:token())
        assert.are.equal(1, fixture:posts())
      end)
    end

    it("is given up when it does not", function()
      local client = stopped_in("load", 1)
      now = now + 3600
      local _, token, message = finish(coroutine.create(function()
        return client:token()
      end))
      assert.is_string(token, message)
    end)
  end)

  it("may be resumed after its client was closed, to no avail", function()
    local client = client_with(yielding_storage())
    local thread = coroutine.create(function()
      return client:token()
    end)
    run_to(thread, "save", 1)
    client:close()
    local ok, token, message, code = finish(thread)
    assert.is_true(ok, token)
    fixture:assert_failure("not_ready", token, message, code)
    assert.is_true(contains(message, "its client"), message)
    assert.are.equal(0, fixture:posts())
  end)
end)

-- A saved record has to be there when it is asked for, or the next refresh token is
-- lost, or the last one is sent twice.
describe("a storage that does not store", function()

  local function saving(change)
    return {
      save = function(account, record)
        local kept = copy(record)
        records[account] = change(kept) or kept
      end,
    }
  end

  local function without(name)
    return saving(function(record)
      record[name] = nil
    end)
  end

  -- Nothing is sent, however often it is tried, and the message names the culprit.
  local function assert_found_out(changes, ...)
    local client = client_with(storage_with(changes), { timeout = 0.15 })
    for _ = 1, 2 do
      local token, message, code = client:refresh()
      fixture:assert_failure("storage", token, message, code)
      for _, part in ipairs({ ... }) do
        assert.is_true(contains(message, part), message)
      end
    end
    assert.are.equal(0, fixture:posts())
  end

  local function nothing()
  end

  local function other_account()
    return tokens.record({ access_token = "a", refresh_token = "r" }, -1)
  end

  for what, case in helper.sorted({
    ["load forgets to return"] = { { load = nothing }, "load returned no record" },
    ["save does nothing"] = { { save = nothing }, "load returned no record after save" },
    ["save keeps three fields"] = { saving(function(record)
      return {
        access_token = record.access_token,
        refresh_token = record.refresh_token,
        expires_in = record.expires_in,
      }
    end), 'save or load dropped the field "' },
    ["save drops tables"] = { without("pending"), 'save or load dropped the field "pending"' },
    ["save makes texts of numbers"] = { saving(function(record)
      for name, value in pairs(record.pending or {}) do
        record.pending[name] = tostring(value)
      end
    end), "pending" },
    ["save fills texts up with space"] = { saving(function(record)
      record.origin = record.origin .. " "
    end), 'another value in the field "origin"' },
    ["load brings another account's record"] = { { load = other_account }, "load" },
  }) do
    it("is found out before anything is sent: " .. what, function()
      assert_found_out(case[1], case[2])
    end)
  end

  it("is found out: save keeps the table that its caller goes on to change", function()
    local last
    assert_found_out({
      load = function(account)
        if last then
          last.pending = nil
        end
        return records[account] and copy(records[account])
      end,
      save = function(account, record)
        records[account], last = record, record
      end,
    }, "pending")
  end)

  it("is found out: load brings the former record for ever", function()
    local former
    records.default = tokens.record({ access_token = "a", refresh_token = "r" }, -1)
    assert_found_out({
      load = function(account)
        return copy(former or records[account])
      end,
      save = function(account, record)
        former = former or records[account]
        records[account] = copy(record)
      end,
    }, "pending")
  end)

  it("is named when load fails the second time", function()
    local loads = 0
    assert_found_out({
      load = function(account)
        loads = loads + 1
        if loads % 3 == 0 then
          error("the connection is gone")
        end
        return copy(records[account])
      end,
    }, "load", "the connection is gone")
  end)

  it("is waited for when it is a replica that lags", function()
    local behind, versions = 0, {}
    local client = client_with(storage_with({
      load = function(account)
        behind = math.max(0, behind - 1)
        return copy(versions[#versions - behind] or records[account])
      end,
      save = function(account, record)
        records[account] = copy(record)
        versions[#versions + 1] = records[account]
        behind = 3
      end,
    }))
    local token = assert(client:refresh())
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(1, fixture:posts())
    assert(client:refresh())
    assert.are.equal(0, sandbox:counts().reuses)
  end)

  it("is asked again in the middle of a flight, by yielding", function()
    local client = client_with(yielding_storage())
    local ok, token = finish(coroutine.create(function()
      return client:token()
    end))
    assert.is_true(ok, token)
    assert.are.equal("load lock load save load save load unlock", names_of_calls())
  end)

  it("is named when it drops the new tokens, which stay in memory", function()
    local events, drops = {}, true
    local client = client_with(storage_with({
      save = function(account, record)
        if record.pending or not drops then
          records[account] = copy(record)
        end
      end,
    }), {
      on_event = function(event)
        events[#events + 1] = event
      end,
    })
    local token = assert(client:token())
    assert.is_true(tokens.works(sandbox, token))
    assert.is_true(client:status().unsaved)
    assert.are.equal("save_failed", events[#events].name)
    assert.is_true(contains(events[#events].message,
      "save was given them, and load does not return them"))
    drops = false
    assert.are.equal(token, client:token())
    assert.is_falsy(client:status().unsaved)
    assert.are.equal(token, records.default.access_token)
  end)

  -- The numbers and lists of Debian's lua-cjson, and of many a database, are the same to us.
  it("is not what rounds to fourteen digits, or makes an object of an empty list", function()
    sandbox:faults({ kind = "transform", raw = { number = "0.1234567890123456789",
      list = "[]", deep = '{"list":[],"none":null}' } })
    local texts = {}
    local client = client_with(storage_with({
      load = function(account)
        return texts[account] and codec.decode_json(texts[account])
      end,
      save = function(account, record)
        record.none = nil
        texts[account] = codec.encode_json(record)
      end,
    }))
    assert(client:refresh())
    assert(client:refresh())
    assert.are.equal(2, fixture:posts())
  end)
end)

-- lua-cjson keeps the decimal point that it has found when it was loaded.
describe("a locale with a decimal comma", function()
  -- of build/<preset>/locales; the C library leaks the path when it is used
  local comma = helper.read_file((os.getenv("LOCPATH") or "") .. "/de_DE.UTF-8/LC_NUMERIC")
  local test = comma and it or pending

  after_each(function()
    os.setlocale("C", "numeric")
  end)

  local function fail_unless_equal(expected, got)
    if expected ~= got then
      error(("%s is not %s"):format(tostring(got), tostring(expected)))
    end
  end

  -- The requests of these modules to the sandbox would be broken as well.
  local function with_a_comma(call)
    os.setlocale("de_DE.UTF-8", "numeric")
    local ok, message = pcall(call)
    os.setlocale("C", "numeric")
    assert(ok, message)
  end

  local function assert_refreshes(client)
    local before = records.default.expires_at
    local token = assert(client:refresh())
    assert(records.default.expires_at >= before)
    if records.default.expires_at % 1 == 0 then -- one moment in a thousand has no fraction
      token = assert(client:refresh())
    end
    assert(records.default.expires_at % 1 ~= 0, "it has lost its fraction")
    fail_unless_equal(token, records.default.access_token)
  end

  test("#plain that is set between two calls changes nothing", function()
    local client = client_with(storage_with())
    local first = assert(client:token())
    with_a_comma(function()
      fail_unless_equal(first, client_with(storage_with()):token())
      assert_refreshes(client)
      fail_unless_equal(nil, client:metrics():find(",%d"))
    end)
    assert.are.equal("[0.5]", cjson.encode({ 0.5 }))
    assert.are.equal(0.5, cjson.decode("[0.5]")[1])
    assert_refreshes(client)
    assert.are.equal(records.default.access_token, client_with(storage_with()):token())
  end)

  test("#plain that is set no longer changes nothing", function()
    with_a_comma(cjson.new)
    local client = client_with(storage_with())
    assert(client:token())
    assert_refreshes(client)
    with_a_comma(function()
      assert_refreshes(client)
    end)
    assert.are.equal(0, sandbox:counts().reuses)
  end)
end)

-- A storage whose lock knows who has it, and where nothing waits. Whatever is cut
-- off, the next call has to go on from there.
describe("a call that is cut off", function()
  local create, resume, status = coroutine.create, coroutine.resume, coroutine.status
  local is_luajit = rawget(_G, "jit") ~= nil
  local known = setmetatable({}, { __mode = "k" })
  local encode, decode = cjson.encode, cjson.decode
  local may_yield, held

  setup(function()
    if is_luajit then
      -- compiled code calls no hook
      jit.off()
      jit.flush()
    end
  end)

  teardown(function()
    if is_luajit then
      jit.on()
    end
  end)

  before_each(function()
    may_yield, held = false, {}
    records.default = tokens.record(tokens.pair(sandbox), -1)
  end)

  local function around(body)
    return function(...)
      if may_yield then
        coroutine.yield()
      end
      local result = body(...)
      if may_yield then
        coroutine.yield()
      end
      return result
    end
  end

  local function watched_storage(changes)
    local storage = helper.merge({
      load = function(account)
        return records[account] and decode(encode(records[account]))
      end,
      save = function(account, record)
        records[account] = decode(encode(record))
      end,
      lock = function(account)
        local free = held[account] == nil
        held[account] = true
        return free
      end,
      unlock = function(account)
        held[account] = nil
      end,
    }, changes)
    for name, body in pairs(storage) do
      storage[name] = around(body)
    end
    storage.sleep = function() end
    return storage
  end

  local function is_ours(called)
    if known[called] == nil then
      known[called] = getinfo(called, "S").source:find("lua/lucidauth[%a/]*%.lua$") ~= nil
    end
    return known[called]
  end

  local function run_on(thread)
    while status(thread) == "suspended" do
      assert(resume(thread))
    end
  end

  -- Calls a function on a coroutine, with an error at the `count`-th line of the
  -- module's own files, as from a debug hook with a time limit. Whether it came to
  -- that.
  local function strike(count, call, subject)
    local error, left = error, count
    local function hook()
      if is_ours(getinfo(2, "f").func) then
        left = left - 1
        if left == 0 then
          sethook()
          error("struck")
        end
      end
    end
    run_on(create(function()
      sethook(hook, "l")
      pcall(call, subject)
      sethook()
    end))
    return left <= 0
  end

  local function assert_nothing_left(where)
    assert.is_nil(held.default, where)
    assert.is_nil(records.default.pending, where)
    assert.are.equal(0, sandbox:counts().reuses, where)
  end

  -- `struck` is called once for each of its lines, and then `call`, with nothing
  -- in its way.
  local function sweep(new, struck, call)
    local line = 0
    local came_to_it
    repeat
      line = line + 1
      local subject = new()
      may_yield = true
      came_to_it = strike(line, struck, subject)
      may_yield = false
      local ok, message = pcall(call, subject)
      local where = ("line %d: %s"):format(line, message or "")
      assert.is_true(ok, where)
      assert.is_nil(held.default, where)
    until not came_to_it
    assert.is_true(line > 10, line)
    assert_nothing_left()
  end

  local function refresh(client)
    assert.is_string(client:refresh())
  end

  it("#plain by an error at any line of refresh() blocks nothing", function()
    local client = client_with(watched_storage())
    sweep(function() return client end, client.refresh, refresh)
  end)

  it("#plain by an error at any line of reject() and status() blocks nothing", function()
    local client = client_with(watched_storage())
    sweep(function() return client end, function()
      client:reject(client:token())
      client:status()
    end, refresh)
  end)

  it("#plain by an error at any line of close() can be closed", function()
    local breaks
    local storage = watched_storage({
      save = function(account, record)
        if breaks and not record.pending then
          return false
        end
        records[account] = decode(encode(record))
      end,
    })
    sweep(function()
      local client = client_with(storage)
      breaks = true
      refresh(client)
      assert.is_true(client:status().unsaved)
      breaks = false
      return client
    end, function(client)
      return client:close()
    end, function(client)
      assert.is_true(client:close())
      assert_nothing_left()
    end)
  end)

  -- Leaves a coroutine where it waits for the storage the `count`-th time. Whether
  -- it was done before that.
  local function leave(client, count, close)
    local thread = create(function()
      assert(client:refresh())
    end)
    may_yield = true
    for _ = 1, count do
      assert(resume(thread))
    end
    may_yield = false
    local landed = status(thread) == "dead"
    if close then
      assert(close(thread))
    end
    return landed
  end

  for what, close in pairs({ closed = coroutine.close, collected = false }) do
    it("since its coroutine is " .. what .. ", wherever it waits, blocks nothing", function()
      local client = client_with(watched_storage())
      local count = 0
      local landed
      repeat
        count = count + 1
        landed = leave(client, count, close)
        if not close then
          collectgarbage()
          collectgarbage()
        end
        refresh(client)
        assert.is_nil(held.default, count)
      until landed
      assert.is_true(count > 12, count)
      assert_nothing_left()
    end)
  end
end)

describe("a login over a storage in Lua", function()
  it("starts it, and replaces what lives only when told so", function()
    local client = client_with(storage_with())
    local answer = tokens.pair(sandbox)
    assert.is_true(client:store(answer, "anna"))
    assert.are.equal(answer.refresh_token, records.anna.refresh_token)
    assert.are.equal(answer.access_token, client:token("anna"))
    local stored, message, code = client:store("another-000", "anna")
    fixture:assert_failure("config", stored, message, code)
    assert.is_true(client:store("another-000", "anna", { replace = true }))
    assert.are.equal("another-000", records.anna.refresh_token)
  end)

  it("is with its user alone when it cannot be saved", function()
    local client = client_with(storage_with({
      save = function()
        return nil, "the disk is full"
      end,
    }))
    local stored, message, code = client:store(tokens.pair(sandbox))
    fixture:assert_failure("storage", stored, message, code)
    assert.is_truthy(message:find("keep it", 1, true))
    assert.is_false(client:status().unsaved)
  end)
end)
