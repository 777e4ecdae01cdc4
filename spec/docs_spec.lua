-- The blocks of docs/ in Lua, shell, C and nginx's words, run as they stand there but for the
-- servers' names; and its lists, held against the code. A comment before a block says why it is
-- not run, or which file it shows:
--
--     <!-- not run: it needs root -->
--     <!-- file: examples/storage/redis_storage.lua -->

local helper = require("spec.helper")
local tokens = require("spec.tokens")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)

local SERVERS = { "https://api%.lucid%.co", "https://login%.example%.com" }

local function all(command)
  return helper.lines(helper.shell(command))
end

local PAGES = all("ls docs/*.md")
local FENCE = "^```(%a*)%s*$"

---@class spec.Block
---@field page string
---@field line integer
---@field kind string "lua", "sh", "c", "nginx" or something else
---@field mark string|nil the comment before it
---@field text string

---@return spec.Block[]
local function blocks_of(page)
  local blocks, block, mark, number = {}, nil, nil, 0
  for line in (helper.read_file(page) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local kind = line:match(FENCE)
    if block and kind then
      block.text = table.concat(block, "\n") .. "\n"
      blocks[#blocks + 1], block, mark = block, nil, nil
    elseif block then
      block[#block + 1] = line
    elseif kind then
      block = { page = page, line = number, kind = kind, mark = mark }
    elseif line ~= "" then
      mark = line:match("^<!%-%- (.-) %-%->$")
    end
  end
  assert(not block, page .. ": a block without an end")
  return blocks
end

local function at_the_sandbox(text)
  for _, server in ipairs(SERVERS) do
    text = text:gsub(server, fixture.sandbox.url)
  end
  return text
end

-- A folder of its own, and the interpreter of this spec under every name.
local function run(command, block)
  local folder = fixture.folder
  for _, name in ipairs({ "lua", "lua5.4", "luajit" }) do
    helper.write_file(folder .. "/bin/" .. name,
      "#!/bin/sh\nexec " .. helper.quote(helper.interpreter) .. ' "$@"\n')
  end
  helper.shell("chmod 755 " .. folder .. "/bin/*")
  local out, err, status = helper.run("cd " .. folder .. " && " .. command,
    fixture:env({ PATH = folder .. "/bin:" .. os.getenv("PATH") .. ":/usr/sbin" }))
  assert.are.equal(0, status, ("%s:%d: %s%s"):format(block.page, block.line, out, err))
  fixture:assert_no_secret(err)
  return out, err
end

local function write(name, block)
  helper.shell("mkdir -p " .. fixture.folder .. "/bin")
  helper.write_file(fixture.folder .. "/" .. name, at_the_sandbox(block.text))
end

local ways = {}

function ways.lua(block)
  write("block.lua", block)
  local _, err = run("exec lua block.lua", block)
  assert.are.equal("", err)
end

function ways.sh(block)
  write("block.sh", block)
  run("exec sh -eu block.sh", block)
end

function ways.c(block)
  write("block.c", block)
  local build = helper.interpreter:match("^(.*)/") .. "/lib"
  local source = helper.shell("pwd"):gsub("\n", "")
  run(("cc -std=c11 -Wall -Wextra -Werror -I %s/src block.c -o block -L %s -Wl,-rpath,%s"
    .. " -llucidauth && exec ./block"):format(source, build, build), block)
end

-- As root, as nginx is started; others may not write where Debian's keeps request bodies.
local TEMPORARY = "http { client_body_temp_path body; proxy_temp_path proxy;"
  .. " fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;"

function ways.nginx(block)
  write("nginx.conf", block)
  if helper.run("id -u") ~= "0\n" then
    local text = helper.read_file(fixture.folder .. "/nginx.conf")
    helper.write_file(fixture.folder .. "/nginx.conf", (text:gsub("http {", TEMPORARY)))
  end
  run("exec nginx -t -p . -c nginx.conf -g 'pid nginx.pid; error_log stderr;'", block)
end

local function shows(block, file)
  assert.are.equal(helper.read_file(file), block.text)
end

describe("the documentation", function()
  for _, page in ipairs(PAGES) do
    for _, block in ipairs(blocks_of(page)) do
      local file = block.mark and block.mark:match("^file: (%S+)$")
      local excuse = block.mark and block.mark:match("^not run: (.+)$")
      local way = ways[block.kind]
      if file then
        it(("shows %s as it is: %s:%d"):format(file, page, block.line), function()
          shows(block, file)
        end)
      elseif way and not excuse then
        it(("has a block of %s that works: %s:%d"):format(block.kind, page, block.line), function()
          way(block)
        end)
      end
    end
  end

  it("points at nothing that is not there", function()
    local pages = all("ls *.md docs/*.md examples/*/*.md")
    for _, page in ipairs(pages) do
      local folder = page:match("^(.*/)") or ""
      local prose = helper.read_file(page):gsub("\n```.-\n```", "")
      for target in prose:gmatch("%]%(([^)%s#]+)") do
        local there = target:find("://", 1, true)
          or helper.run("test -e " .. helper.quote(folder .. target) .. " && echo there") ~= ""
        assert.is_true(there and true, page .. " points at " .. target)
      end
    end
  end)
end)

describe("the page about providers", function()
  it("names options that there are", function()
    local options = helper.read_file("lua/lucidauth/options.lua")
    local count = 0
    for name in helper.read_file("docs/PROVIDERS.md"):gmatch("\n| `([a-z_]+)[^`]*` |") do
      count = count + 1
      assert.is_true(helper.contains(options, "---@field " .. name .. "? "), name)
    end
    assert.is_true(count > 5)
  end)
end)

describe("the changelog", function()
  it("begins with the version that this is", function()
    local newest = helper.read_file("CHANGELOG.md"):match("\n## %[([%d.]+)%]")
    assert.are.equal(require("lucidauth")._VERSION, newest)
  end)
end)

-- Lists ---------------------------------------------------------------------

local HEADER = helper.read_file("src/lucidauth.h")

-- The lists in the tables of a page's section: the text in the first cell of each row, and the
-- other cells.
local function listed(page, section, prefix)
  local text = helper.read_file(page) .. "\n## "
  text = assert(text:match("\n## " .. section .. "\n(.-)\n## "), section)
  local found = {}
  for first, others in text:gmatch("\n| (`[^|]+`) |([^\n]*)") do
    for item in first:gmatch("`([^`]+)`") do
      local name = prefix and item:match("^" .. prefix .. "([%w_]+)") or not prefix and item
      if name then
        assert.is_nil(found[name], name .. " is there twice")
        found[name] = others
      end
    end
  end
  assert.is_truthy(next(found), section .. " lists nothing")
  return found
end

local function names_in(text, pattern)
  local names = {}
  for name in text:gmatch(pattern) do
    names[name] = true
  end
  return names
end

local function names_of(map, is_one)
  local names = {}
  for name, value in next, map do
    if not is_one or is_one(name, value) then
      names[name] = true
    end
  end
  return names
end

local function lower(names)
  local result = {}
  for name in pairs(names) do
    result[name:lower()] = true
  end
  return result
end

local function is_public(name, value)
  return type(value) == "function" and not name:find("^_") and not name:find("^slow_")
end

local function reference(section, prefix)
  return names_of(listed("docs/REFERENCE.md", section, prefix))
end

-- The names of a table that stands in a source.
local function keys_of(file, name)
  local body = assert(helper.read_file(file):match("local " .. name .. " = (%b{})"), name)
  return names_in(body, "[{,]%s*([a-z_]+) =")
end

local CODES = names_in(HEADER, "LUCIDAUTH_[A-Z_]+,?%s+/%* \"([a-z_]+)\":")

describe("the page about trouble", function()
  it("has every code, and no other", function()
    assert.is_truthy(CODES.lost_rotation)
    local page = helper.read_file("docs/TROUBLESHOOTING.md")
    assert.are.same(CODES, names_in(page, "\n### `([a-z_]+)`"))
  end)
end)

describe("the reference has every", function()
  it("function of the module", function()
    local lucid = require("lucidauth")
    assert.is_truthy(lucid.new)
    assert.are.same(names_of(lucid, is_public), reference("The module", "lucid%."))
  end)

  it("method of a client", function()
    local client = fixture:client()
    local methods = names_of(getmetatable(client).__index, is_public)
    methods.token = true
    assert.are.same(methods, reference("Clients", "client:"))
  end)

  it("option, with its default", function()
    local options = listed("docs/REFERENCE.md", "Options")
    assert.are.same(keys_of("lua/lucidauth/options.lua", "checks"), names_of(options))
    local defaults = HEADER:match("define LUCIDAUTH_OPTIONS_INIT%s.-(%b{})")
    local count = 0
    for name, number in defaults:gmatch("%.([a-z_]+) = (%d+)%f[^%d]") do
      count = count + 1
      assert.are.equal(number, options[name]:match("^ (%d+) |"), name)
    end
    assert.is_true(count >= 6)
  end)

  it("field of a storage", function()
    local fields = keys_of("lua/lucidauth/options.lua", "own_fields")
    for name in pairs(keys_of("lua/lucidauth/options.lua", "file_fields")) do
      fields[name] = true
    end
    assert.are.same(fields, reference("Storages"))
  end)

  it("field of the status", function()
    local source = helper.read_file("lua/lucidauth/client.lua")
    local described = names_in(source:match("@class LucidStatus\n(.-)\n\n"), "@field ([a-z_]+)")
    assert.are.same(described, reference("Status"))
    local client = fixture:client()
    client:token()
    local fields = names_of(client:status())
    client:reject(client:token())
    fixture.sandbox:faults({ kind = "answer", status = 429, headers = { ["Retry-After"] = "600" } })
    fixture:assert_failure("rate_limited", client:token())
    assert.are.same(helper.merge(fields, names_of(client:status())), reference("Status"))
  end)

  it("event", function()
    assert.are.same(lower(names_in(HEADER, "LUCIDAUTH_EVENT_([A-Z_]+),?%s")), reference("Events"))
  end)

  it("code", function()
    assert.are.same(CODES, reference("Error codes"))
  end)

  it("metric, with its type", function()
    local metrics = listed("docs/REFERENCE.md", "Metrics")
    local count = 0
    for name, kind in require("lucidauth.metrics").render("", {}):gmatch("# TYPE (%S+) (%S+)\n") do
      count = count + 1
      assert.are.equal(kind, (metrics[name] or ""):match("^ (%a+) |"), name)
      metrics[name] = nil
    end
    assert.is_true(count > 0)
    assert.is_nil(next(metrics))
  end)

  it("variable of the environment", function()
    local source = helper.shell("cat $(find src -name '*.c')")
    assert.are.same(names_in(source, '"(LUCID_[A-Z_]+)"'), reference("Environment variables"))
  end)

  it("function and setting of the sandbox", function()
    local sandbox = require("lucidauth.sandbox")
    assert.are.same(names_of(sandbox, is_public), reference("The sandbox", "sandbox%."))
    local server = assert(sandbox.new({}))
    local methods = names_of(getmetatable(server).__index, is_public)
    server:stop()
    assert.are.same(methods, reference("The sandbox", "server:"))
    local settings = helper.read_file("lua/lucidauth/sandbox/settings.lua")
    local found = reference("The sandbox")
    for name in pairs(found) do
      found[name] = not name:find("%(") or nil
    end
    assert.are.same(names_in(settings, '\n  { "([a-z_]+)", "'), found)
  end)
end)

describe("the page about C", function()
  it("has every function", function()
    assert.are.same(names_in(HEADER, "LUCIDAUTH_API [^;]-(lucidauth_[a-z_]+)%("),
      names_of(listed("docs/C.md", "The functions")))
  end)
end)

-- Examples ------------------------------------------------------------------

describe("the example for cron", function()
  local PLACE = "/.local/state/lucid"

  -- As cron runs it: in another folder, without the environment of a shell.
  local function run_by_cron(changes)
    local source = helper.shell("pwd"):gsub("\n", "")
    helper.shell("mkdir -p " .. fixture.folder .. PLACE)
    local out, err, status = helper.run(("cd / && exec %s %s/examples/cron.lua"):format(
      helper.quote(helper.interpreter), helper.quote(source)),
      fixture:env(helper.merge({ HOME = fixture.folder, LUCID_TOKEN_FILE = false }, changes)))
    assert.are.equal("", out)
    fixture:assert_no_secret(err)
    return status, err
  end

  it("says nothing as long as all is well, and keeps its tokens in one place", function()
    local status, err = run_by_cron()
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.is_truthy(helper.read_file(fixture.folder .. PLACE .. "/token_info.json"))
    assert.are.equal(0, (run_by_cron({ LUCID_REFRESH_TOKEN = false })))
    assert.are.equal(1, fixture:posts())
    assert.are.equal(2, fixture.sandbox:counts().api_requests)
  end)

  it("sends a request once more after a 401", function()
    assert.are.equal(0, (run_by_cron()))
    fixture.sandbox:expire()
    assert.are.equal(0, (run_by_cron()))
    assert.are.equal(2, fixture:posts())
    assert.are.equal(1, fixture.sandbox:counts().api_401)
  end)

  for what, case in pairs({
    ["a second 401"] = { 69, { endpoint = "api", kind = "answer", status = 401, times = 2 } },
    ["another refusal"] = { 69, { endpoint = "api", kind = "answer", status = 403 } },
    ["an API that is down"] = { 75, { endpoint = "api", kind = "answer", status = 503 } },
    ["an API that hangs up"] = { 75, { endpoint = "api", kind = "close" } },
    ["a token endpoint that says later"] = { 75,
      { kind = "answer", status = 429, headers = { ["Retry-After"] = "600" } } },
    ["a client that is not accepted"] = { 78,
      { kind = "answer", status = 401, body = { error = "invalid_client" } } },
  }) do
    it("says how it went: " .. what, function()
      fixture.sandbox:faults(case[2])
      local status, err = run_by_cron()
      assert.are.equal(case[1], status, err)
      assert.is_truthy(err:find("cron.lua: ", 1, true))
    end)
  end
end)

describe("each example", function()
  local files = all("find examples -type f ! -name '*.md' ! -name '*.json' ! -name '*.lock'"
    .. " ! -name '*.log' ! -name '*.pid'")

  for _, file in ipairs(files) do
    it("begins with what it shows: " .. file, function()
      local text = helper.read_file(file):gsub("^#![^\n]*\n", "")
      assert.is_truthy(text:find("^[-#/*%s]+Shows "), text:match("^[^\n]*"))
    end)
  end
end)

-- Storages ------------------------------------------------------------------

describe("the page about storages", function()
  -- two questions, pauses, ten calls and two looks: see the page
  local BESIDES = 2 + 1 + 10 + 2

  it("tells the smallest lease that is safe by default", function()
    local lasts
    local storage = {
      load = function() end,
      save = function(_, record)
        lasts = record.pending.lasts
        error("it has been seen")
      end,
    }
    fixture:client({ storage = storage, timeout = 30 }):token()
    local smallest = lasts and lasts + BESIDES
    assert.is_truthy(smallest and helper.read_file("docs/STORAGE.md"):find(
      ("**%d seconds** with the default `timeout` of 30"):format(smallest), 1, true))
  end)
end)

package.path = package.path .. ";./examples/storage/?.lua"
-- Debian's redis-lua is plain Lua, and is installed for Lua 5.1 to 5.3
package.path = package.path .. ";/usr/share/lua/5.3/?.lua"

local databases = { redis = {}, sqlite = {} }

function databases.redis.start()
  local folder = helper.tmpdir()
  databases.redis.path = folder .. "/socket"
  databases.redis.server = helper.start(("exec redis-server --port 0 --unixsocket %s --dir %s"
    .. " --save '' --daemonize no"):format(folder .. "/socket", folder))
  helper.eventually(function()
    return helper.run("redis-cli -s " .. folder .. "/socket ping") == "PONG\n"
  end, "Redis's answer")
end

function databases.redis.stop()
  databases.redis.server:kill("TERM")
  databases.redis.server:wait()
end

function databases.sqlite.start()
  databases.sqlite.path = helper.tmpdir() .. "/tokens.db"
end

function databases.sqlite.stop()
  helper.shell("rm -rf " .. helper.quote(databases.sqlite.path:match("^(.*)/")))
end

local UNTIL_CALL = [[
  local storage = require("%s_storage").new { path = %q, lease = %f }
  local name, left = %q, %d
  local body = storage[name]
  storage[name] = function(...)
    left = left - 1
    if left == 0 then
      os.exit(7)
    end
    return body(...)
  end
  require("lucidauth").new({ storage = storage }):token()
]]

for name, database in pairs(databases) do
  describe("the storage in " .. name, function()
    local module = require(name .. "_storage")

    local function new(options)
      return module.new(helper.merge({ path = database.path }, options))
    end

    local function client_over(storage)
      return fixture:client({ storage = storage })
    end

    -- A process that ends at the call of this function, the `count`-th one.
    local function end_at(call, count, lease)
      local _, err, status = helper.run_lua(UNTIL_CALL:format(name, database.path, lease, call,
        count), fixture:env({ LUCID_TOKEN_FILE = false }))
      assert.are.equal(7, status, err)
    end

    before_each(function()
      database.start()
    end)

    after_each(function()
      database.stop()
    end)

    it("keeps the tokens for the next client", function()
      local token = assert(client_over(new()):token())
      assert.are.equal(token, client_over(new()):token())
      assert.are.equal(1, fixture:posts())
      assert.is_true(tokens.works(fixture.sandbox, token))
      assert.are.equal(token, new().load("default").access_token)
      assert.is_nil(new().load("another"))
    end)

    it("refreshes, and gives its lock back", function()
      local client = client_over(new())
      local first = assert(client:token())
      assert.are_not.equal(first, client:refresh())
      assert.are.equal(2, fixture:posts())
      assert.is_true(new().lock("default"))
    end)

    it("keeps accounts apart, whatever they are called", function()
      local account = "O'Neil ?1 %s"
      new().save(account, { refresh_token = "it's" })
      assert.are.equal("it's", new().load(account).refresh_token)
      assert.is_true(new().lock(account))
      assert.is_true(new().lock("default"))
    end)

    it("has a lock that one has at a time, and that its owner alone gives back", function()
      local one, other = new(), new()
      assert.is_true(one.lock("default"))
      assert.is_false(other.lock("default"))
      other.unlock("default")
      assert.is_false(other.lock("default"))
      one.unlock("default")
      one.unlock("default")
      assert.is_true(other.lock("default"))
      one.unlock("default")
      assert.is_false(one.lock("default"))
    end)

    it("has a lock that ends by itself", function()
      local one, other = new({ lease = 0.02 }), new()
      assert.is_true(one.lock("default"))
      helper.eventually(function()
        return other.lock("default")
      end, "the end of the lease")
      one.unlock("default")
      assert.is_false(new().lock("default"))
    end)

    it("says what is wrong with it, and nothing is sent", function()
      local client = client_over(new())
      database.stop()
      fixture:assert_failure("storage", client:token())
      assert.are.equal(0, fixture:posts())
    end)

    it("loses nothing when a process ends before the request", function()
      end_at("load", 3, 0.02)
      assert.is_truthy(new().load("default").pending)
      assert.are.equal(0, fixture:posts())
      local token = assert(client_over(new()):token())
      assert.is_true(tokens.works(fixture.sandbox, token))
    end)

    it("tells when a process has ended between the answer and its save", function()
      end_at("save", 2, 0.02)
      local _, message, code = client_over(new()):token()
      assert.are.equal("lost_rotation", code)
      assert.is_true(helper.contains(message, "process"), message)
    end)
  end)
end
