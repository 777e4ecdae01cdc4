-- Many processes on one token file: one refresh, and one token for all.

local helper = require("spec.helper")
local tokens = require("spec.tokens")

local PROCESSES = 32

-- Says that it is ready, waits for its byte, and then asks for a token.
local CHILD = [[
local lucid = require("lucidauth")
local folder, account = os.getenv("BARRIER"), os.getenv("ACCOUNT")
local ready = assert(io.open(folder .. "/ready", "a"))
ready:write("x")
ready:close()
local gate = assert(io.open(folder .. "/gate", "rb"))
gate:setvbuf("no")
assert(gate:read(1))
local client = lucid.new({ storage = os.getenv("STORAGE_FOLDER")
  and { directory = os.getenv("STORAGE_FOLDER") } or nil })
local token, message, code = client:token(account)
io.stdout:write(token or tostring(code) .. ": " .. tostring(message))
]]

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

local function size_of(name)
  return #(helper.read_file(name) or "")
end

-- Starts one process for each of these environments, lets all of them go at the
-- same moment, and returns what they printed.
local function run_at_once(environments)
  local processes, results = {}, {}
  assert(os.execute("mkfifo " .. helper.quote(fixture.folder .. "/gate")))
  -- Read and write: to open the gate must not wait for whoever comes first.
  local gate = assert(io.open(fixture.folder .. "/gate", "r+b"))
  for i, environment in ipairs(environments) do
    environment.BARRIER = fixture.folder
    processes[i] = helper.start({ helper.interpreter, "-e", CHILD }, environment)
  end
  helper.eventually(function()
    for _, process in ipairs(processes) do
      assert(size_of(process.folder .. "/err") == 0, "a process failed to start")
    end
    return size_of(fixture.folder .. "/ready") == #environments
  end)
  gate:write(("x"):rep(#environments))
  gate:flush()
  for i, process in ipairs(processes) do
    local out, err, status = process:wait()
    assert(status == 0, err)
    results[i] = out
  end
  gate:close()
  return results
end

local function environments(count, changes)
  local list = {}
  for i = 1, count do
    list[i] = fixture:env(changes)
  end
  return list
end

local function assert_all_equal(expected, results)
  for _, result in ipairs(results) do
    assert.are.equal(expected, result)
  end
end

local function assert_no_token_twice()
  local counts = sandbox:counts()
  assert.are.equal(0, counts.reuses)
  assert.are.equal(0, counts.overlaps)
  assert.are.equal(0, counts.refusals)
end

-- All of them start at once on what is stored: one request, and one token.
local function check_one_refresh()
  local before = fixture:posts()
  local results = run_at_once(environments(PROCESSES))
  assert.are.equal(before + 1, fixture:posts())
  assert_all_equal(sandbox:grant().access_token, results)
  assert_no_token_twice()
  return results[1]
end

describe(PROCESSES .. " processes that start at once", function()
  it("on an expired file make one refresh, and have the same token", function()
    fixture:store(-1)
    sandbox:settings({ latency = 0.05 })
    local token = check_one_refresh()
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(token, tokens.read(fixture.path).access_token)
  end)

  it("on no file at all spend the first refresh token once", function()
    check_one_refresh()
  end)

  it("on a token that is due, but lives, make one refresh", function()
    fixture:store(60)
    sandbox:settings({ latency = 0.05 })
    check_one_refresh()
  end)

  it("on a good token ask nobody", function()
    local pair = fixture:store(3000)
    local before = sandbox:counts().connections
    local results = run_at_once(environments(PROCESSES))
    assert_all_equal(pair.access_token, results)
    assert.are.equal(before, sandbox:counts().connections)
  end)

  it("on a file that the example script wrote make one refresh", function()
    local pair = tokens.pair(sandbox)
    pair.expiration = os.date("%Y-%m-%dT%H:%M:%S.000001", os.time() - 10)
    tokens.write(fixture.path, pair)
    check_one_refresh()
  end)

  it("on four accounts make four refreshes", function()
    local list = {}
    for i = 1, 4 do
      local account = "account-" .. i
      sandbox:open_grant({ account = account })
      tokens.write(fixture.folder .. "/" .. account .. ".json",
        tokens.record(tokens.pair(sandbox, account), -1))
      for _ = 1, PROCESSES / 4 do
        list[#list + 1] = fixture:env({ ACCOUNT = account, STORAGE_FOLDER = fixture.folder })
      end
    end
    sandbox:settings({ latency = 0.05 })
    local before = fixture:posts()
    local results = run_at_once(list)
    assert.are.equal(before + 4, fixture:posts())
    for i, env in ipairs(list) do
      assert.are.equal(sandbox:grant(env.ACCOUNT).access_token, results[i])
    end
    assert_no_token_twice()
  end)
end)

describe("a few processes on a dead grant", function()
  it("ask the server once each, one after another, and the record stays", function()
    fixture:store(-1)
    sandbox:revoke_all()
    local before, record = fixture:posts(), tokens.read(fixture.path)
    local results = run_at_once(environments(4, { LUCID_REFRESH_TOKEN = false }))
    for _, result in ipairs(results) do
      assert.is_truthy(result:find("^invalid_grant: "), result)
    end
    assert.are.equal(before + 4, fixture:posts())
    assert.are.equal(0, sandbox:counts().overlaps)
    assert.are.equal(record.refresh_token, tokens.read(fixture.path).refresh_token)
  end)
end)

describe("a second process", function()
  local PRINT = 'io.stdout:write((assert(require("lucidauth").token())))'

  it("finds the token of the first", function()
    local first = helper.run_lua(PRINT, fixture:env())
    local second = helper.run_lua(PRINT, fixture:env())
    assert.are.equal(sandbox:grant().access_token, first)
    assert.are.equal(first, second)
    assert.are.equal(1, fixture:posts())
  end)

  it("needs neither the server nor any secret for it", function()
    local first = helper.run_lua(PRINT, fixture:env())
    local second = helper.run_lua(PRINT, tokens.env({
      LUCID_TOKEN_FILE = fixture.path,
      LUCID_API_URL = "http://127.0.0.1:1",
    }))
    assert.are.equal(first, second)
  end)

  it("goes on from where the first one was when it ended without a word", function()
    local first = helper.run_lua(PRINT .. " io.stdout:flush() os.exit(0)", fixture:env())
    local killed = helper.run_lua(
      PRINT .. ' io.stdout:flush() os.execute("kill -KILL $PPID")', fixture:env())
    assert.are.equal(first, killed)
    assert.are.equal(first, (helper.run_lua(PRINT, fixture:env())))
    assert.are.equal(1, fixture:posts())
  end)
end)

-- lua-posix is not there for every Lua; spec/account/fork_test.c has more of this.
if pcall(require, "posix.unistd") and pcall(require, "posix.sys.wait") then
  describe("fork()", function()
    local FORK = [[
      local lucid = require("lucidauth")
      local unistd, wait = require("posix.unistd"), require("posix.sys.wait").wait
      io.stdout:setvbuf("no")
      -- one write: print makes two, and another process's may come in between
      local function say(token, message)
        io.stdout:write((token or message) .. "\n")
      end
      local function in_child(body)
        local child = assert(unistd.fork())
        if child == 0 then
          local ok, message = pcall(body)
          if not ok then
            print(message)
          end
          unistd._exit(ok and 0 or 1)
        end
        assert(select(3, wait(child)) == 0)
      end
    ]]

    local function run(code)
      local out, err, status = helper.run_lua(FORK .. code, fixture:env())
      assert(status == 0, out .. err)
      return helper.lines(out)
    end

    it("gives the child its parent's token", function()
      local lines = run([[
        print(lucid.token())
        in_child(function() print(lucid.token()) end)
        print(lucid.token())
      ]])
      assert.are.same({ lines[1], lines[1], lines[1] }, lines)
      assert.are.equal(1, fixture:posts())
    end)

    it("has the parent see what the child refreshed, and the other way round", function()
      local lines = run([[
        print(lucid.token())
        in_child(function() print(lucid.refresh()) end)
        print(lucid.token())
        print(lucid.refresh())
        in_child(function() print(lucid.token()) end)
      ]])
      assert.are_not.equal(lines[1], lines[2])
      assert.are.equal(lines[2], lines[3])
      assert.are_not.equal(lines[3], lines[4])
      assert.are.equal(lines[4], lines[5])
      assert.are.equal(3, fixture:posts())
      assert_no_token_twice()
    end)

    it("lets the child close what it has without harm to the parent", function()
      local lines = run([[
        print(lucid.token())
        in_child(function() lucid.close() collectgarbage() print(lucid.token()) end)
        print(lucid.refresh())
        print(lucid.token())
      ]])
      assert.are.equal(lines[1], lines[2])
      assert.are.equal(lines[3], lines[4])
      assert.are.equal(2, fixture:posts())
    end)

    it("does not bring a rejected token back", function()
      local lines = run([[
        local token = lucid.token()
        print(token)
        lucid.reject(token)
        in_child(function() print(lucid.token()) end)
        print(lucid.token())
      ]])
      assert.are_not.equal(lines[1], lines[2])
      assert.are.equal(lines[2], lines[3])
      assert.are.equal(2, fixture:posts())
    end)

    it("of many children at once makes one refresh", function()
      fixture:store(-1)
      sandbox:settings({ latency = 0.05 })
      local before = fixture:posts()
      local lines = run([[
        local children = {}
        for i = 1, 16 do
          children[i] = assert(unistd.fork())
          if children[i] == 0 then
            say(lucid.token())
            unistd._exit(0)
          end
        end
        for i = 1, 16 do
          assert(select(3, wait(children[i])) == 0)
        end
        say(lucid.token())
      ]])
      assert.are.equal(17, #lines)
      assert_all_equal(sandbox:grant().access_token, lines)
      assert.are.equal(before + 1, fixture:posts())
      assert_no_token_twice()
    end)
  end)
end

-- A storage in Lua, in the same file.
local OWN_STORAGE = [[
local codec = require("lucidauth.sandbox.codec")
local path = os.getenv("LUCID_TOKEN_FILE")
local function load()
  local file = io.open(path)
  return file and codec.decode_json(file:read("*a"))
end
local function save(_, record)
  local file = assert(io.open(path, "w"))
  file:write(codec.encode_json(record))
  file:close()
end
require("lucidauth").new({ storage = { load = load, save = save } }):token()
]]

-- A script that gets this signal while the server is at work on its refresh.
local function strike_in_the_middle(code, signal)
  sandbox:faults({ kind = "held" })
  local script = helper.start({ helper.interpreter, "-e", code }, fixture:env())
  helper.eventually(function()
    return sandbox:counts().rotations == 1
  end, "the refresh")
  script:kill(signal)
  return script
end

local function status_of(script)
  return (select(3, script:wait()))
end

local function end_in_the_middle(code, signal)
  local script = strike_in_the_middle(code, signal)
  sandbox:clear_faults()
  return status_of(script)
end

local function assert_stored()
  local record = assert(tokens.read(fixture.path))
  assert.are.equal(sandbox:grant().refresh_token, record.refresh_token)
  assert.is_nil(record.pending)
end

describe("a signal in the middle of a refresh", function()
  it("ends a script when its tokens are stored", function()
    assert.are.equal(128 + 15, end_in_the_middle('require("lucidauth").token()', "TERM"))
    assert_stored()
  end)

  it("ends one with a storage of its own then, too", function()
    assert.are.equal(128 + 14, end_in_the_middle(OWN_STORAGE, "ALRM"))
    assert_stored()
  end)

  it("ends one at once that wants it so", function()
    local code = 'require("lucidauth").new({ hold_signals = false }):token()'
    assert.are.equal(128 + 15, status_of(strike_in_the_middle(code, "TERM")))
    assert.is_not_nil(tokens.read(fixture.path).pending)
    sandbox:clear_faults()
  end)
end)
