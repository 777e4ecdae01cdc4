-- The README's blocks in Lua and in the shell, run as they stand there but for the server's name
-- and the dots in place of secrets. Its nginx.conf is tried in nginx/readme_spec.lua, its ways to
-- install in packaging/rock and packaging/install.

local helper = require("spec.helper")
local lucid = require("lucidauth")

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)

local README = helper.read_file("README.md")

local function section_of(name)
  return name and assert(README:match("\n## " .. name .. "\n(.-)\n## "), name)
    or README:match("^(.-)\n## ")
end

local function block_of(section)
  return section_of(section):match("```lua\n(.-)```")
end

-- Lines that are indented, without the comments behind them.
local function commands_of(section)
  local commands = {}
  for line in section_of(section):gmatch("\n    ([^\n]+)") do
    commands[#commands + 1] = line:gsub("%s+# .*$", "")
  end
  return commands
end

-- In a folder of its own, where every name of Lua is the interpreter of this spec.
local function run(script, env)
  helper.shell("mkdir -p " .. fixture.folder .. "/bin")
  local program = fixture.folder .. "/bin/lua5.4"
  helper.write_file(program, "#!/bin/sh\nexec " .. helper.quote(helper.interpreter) .. ' "$@"\n')
  helper.shell("chmod 755 " .. program)
  return helper.run("cd " .. fixture.folder .. "\n" .. script,
    helper.merge(env, { PATH = fixture.folder .. "/bin:" .. os.getenv("PATH") }))
end

local function run_lua(code, env)
  helper.write_file(fixture.folder .. "/script.lua", code)
  return run("exec lua5.4 script.lua", fixture:env(env))
end

describe("the README", function()
  it("shows all its Lua in the sections that are tried here", function()
    local count = select(2, README:gsub("```lua\n", ""))
    assert.are.equal(3, count)
  end)

  it("is short, in lines that fit", function()
    local lines = select(2, README:gsub("\n", ""))
    assert.is_true(lines <= 150, lines .. " lines")
    for line in README:gmatch("[^\n]+") do
      assert.is_true(#line <= 123, line)
    end
  end)

  it("begins with two lines that get a token", function()
    local out, err, status = run_lua(block_of() .. "print(token)")
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.are.equal(fixture.sandbox:grant().access_token .. "\n", out)
  end)

  it("names two programs to begin with", function()
    for _, command in ipairs(commands_of()) do
      local path = command:match("^%S+")
      assert.are.equal("there\n", (helper.run("test -x " .. path .. " && echo there")), path)
    end
  end)

  it("shows how to get the first token", function()
    local commands = commands_of("The first token")
    assert.are.equal(3, #commands)
    local exports, changed = commands[1]:gsub("(LUCID_[A-Z_]+)=%.%.%.", function(name)
      return name .. "=" .. fixture.sandbox.env[name]
    end)
    assert.are.equal(3, changed)
    local out, err, status = run(exports .. "\n" .. commands[2],
      { LUCID_API_URL = fixture.sandbox.url, LUCID_TOKEN_FILE = false })
    assert.are.equal(0, status, err)
    assert.are.equal(fixture.sandbox:grant().access_token .. "\n", out)
    assert.is_truthy(helper.read_file(fixture.folder .. "/token_info.json"))
  end)

  it("shows how to do without an account", function()
    local commands = commands_of("The first token")
    helper.shell("mkfifo " .. fixture.folder .. "/until")
    local out, err, status = run(([[
      %s --until-stdin-closes <until >said &
      exec 3>until
      until grep -q LUCID_REFRESH_TOKEN= said; do kill -0 $! || exit 1; sleep 0.01; done
      eval "$(grep export said)"
      %s
    ]]):format(commands[3], commands[2]), { LUCID_TOKEN_FILE = false })
    assert.are.equal(0, status, err)
    assert.is_truthy(out:find("^%S+\n$"), out)
  end)

  local function try_script()
    local block, changed = block_of("A script that handles a 401"):gsub("https://api%.lucid%.co",
      fixture.sandbox.url)
    assert.are.equal(1, changed)
    local out, err, status = run_lua(block)
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.is_true(helper.contains(out, '"email"'), out)
  end

  it("has a script that calls the API", function()
    try_script()
    assert.are.equal(1, fixture.sandbox:counts().api_requests)
    assert.are.equal(1, fixture:posts())
  end)

  it("has a script that handles a 401", function()
    fixture.sandbox:faults({ kind = "answer", endpoint = "api", status = 401, body = "no" })
    try_script()
    assert.are.equal(0, #fixture.sandbox:faults())
    assert.are.equal(1, fixture.sandbox:counts().api_requests)
    assert.are.equal(2, fixture:posts())
  end)

  it("has several accounts", function()
    helper.shell("cd " .. fixture.folder .. " && " .. commands_of("Several accounts")[1])
    local out, err, status = run_lua(block_of("Several accounts"))
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.are.equal("3\n", out)
    assert.is_truthy(helper.read_file(fixture.folder .. "/tokens/anna.json"))
  end)

  it("names options that there are", function()
    local options = section_of("Options"):match("^.-take (.-) and more")
    for name in options:gmatch("`([a-z_]+)`") do
      local _, message = pcall(lucid.new, { [name] = {} })
      assert.is_nil(tostring(message):find("unknown option", 1, true), name)
    end
  end)
end)

describe("each function that programs call", function()
  for file, pattern in pairs({
    ["lua/lucidauth.lua"] = "^lucid%.",
    ["lua/lucidauth/module.lua"] = "^function lucid%.",
    ["lua/lucidauth/client.lua"] = "^function Client:",
    ["lua/lucidauth/sandbox.lua"] = "^function sandbox%.",
    ["lua/lucidauth/sandbox/server.lua"] = "^function Server:",
  }) do
    it("is described where it stands: " .. file, function()
      local count, before = 0, ""
      for line in (helper.read_file(file) .. "\n"):gmatch("(.-)\n") do
        -- the slow ways are token()'s and authorization()'s own, which have their places
        if line:find(pattern) and not line:find(":slow_", 1, true) then
          count = count + 1
          assert.is_truthy(before:find("^%-%-%-"), line)
        end
        before = line
      end
      assert.is_true(count > 0)
    end)
  end
end)
