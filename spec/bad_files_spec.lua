-- Token files that cannot be used: each is refused with a message that helps,
-- nothing is spent or changed, and all works again when the cause is gone.

local attempt = require("spec.attempt")
local helper = require("spec.helper")
local parallel = require("spec.parallel")
local tokens = require("spec.tokens")

local quote, shell, plain = helper.quote, helper.shell, helper.without_privileges()
local holds = attempt.holds

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

-- A damaged file is looked at again several times, which most of them wait for.
local it = parallel.deal(5, it, teardown, function(why)
  pending(why)
end)

local function chmod(mode, file)
  shell(("chmod %s -- %s"):format(mode, quote(file or fixture.path)))
end

local function mode_of(file)
  return (shell("stat -c %a -- " .. quote(file or fixture.path)):gsub("%s+$", ""))
end

local is_root = helper.run("id -u") == "0\n"

-- The command that gives a program mounts of its own.
local function find_own_mounts()
  for _, way in ipairs({ "unshare --mount ", "unshare --user --map-root-user --mount " }) do
    local probe = way .. "sh -c 'mount -t tmpfs -o size=64k tmpfs /mnt' 2>&1"
    local _, _, status = helper.run(probe)
    if status == 0 then
      return way
    end
  end
end

local function write_record(left)
  return fixture:store(left, { note = { "another program's" } })
end

local function write_private(text, file)
  helper.write_file(file or fixture.path, text)
  chmod("600", file)
end

-- All that must not change: what it is, its mode, its owner, its bytes.
local function snapshot(file)
  local what = shell("stat -c '%F %a %u %g %h %i %s' -- " .. quote(file))
  if what:find("^regular") then
    return what .. assert(helper.read_file(file))
  end
  return what .. helper.run("readlink -- " .. quote(file))
end

local function client_with(changes)
  return fixture:client(helper.merge({ refresh_token = sandbox:grant().refresh_token }, changes))
end

local SAFE = { "Nothing was changed" }

local function assert_refused(words, token, message, code)
  assert.is_nil(token)
  assert.are.equal("storage", code, message)
  assert.is_true(holds(message, SAFE), message)
  assert.is_true(holds(message, words), message)
end

-- A call that must fail without a request or a change; then `mend` takes the
-- cause away, and the same client must work, with one refresh.
local function check_refusal(words, mend, changes)
  local before, grant, asked = snapshot(fixture.path), sandbox:grant(), fixture:posts()
  local client = client_with(changes)
  for _ = 1, 2 do
    assert_refused(words, client:token())
  end
  assert_refused(words, client:refresh())
  assert.are.equal(before, snapshot(fixture.path))
  assert.are.equal(asked, fixture:posts())
  assert.are.same(grant, sandbox:grant())
  mend()
  local token = assert(client:token())
  assert.is_true(tokens.works(sandbox, token))
  assert.are.equal(asked + 1, fixture:posts())
end

-- The record has gone into the token file by other means than the client's.
local function restore(record)
  return function()
    shell("rm -rf -- " .. quote(fixture.path))
    tokens.write(fixture.path, record)
  end
end

-- The same in a process of its own, for whom modes hold.
local function run_plain()
  return attempt.run(fixture:env({ LUCID_REFRESH_TOKEN = false }), plain)
end

local function skip_unless_plain()
  local _, _, status = helper.run(plain .. quote(helper.interpreter)
    .. " -e 'require(\"lucidauth\")'")
  if status ~= 0 then
    pending("this user cannot give its privileges away, or others cannot read the module")
  end
end

-- Bytes that are always the same and mean nothing.
local function noise(count, lowest)
  local seed, bytes = 42, {}
  for i = 1, count do
    seed = (seed * 16807) % 2147483647
    bytes[i] = string.char(lowest + seed % (256 - lowest))
  end
  return table.concat(bytes)
end

describe("a damaged token file", function()
  local RECORD = '{"access_token":"A","refresh_token":"R","expires_in":3600}'
  local DAMAGED = { "does not hold a token record", "Move it", "log in to Lucid again",
    "refresh token" }

  local damages = {
    ["an empty one"] = "",
    ["one of white space"] = " \n\t\n",
    ["one that was cut off"] = RECORD:sub(1, -12),
    ["one whose last byte is missing"] = RECORD:sub(1, -2),
    ["one with more behind the record"] = RECORD .. "}",
    ["two records in one"] = RECORD .. "\n" .. RECORD,
    ["random bytes"] = noise(500, 1),
    ["an array"] = "[" .. RECORD .. "]",
    ["a string"] = '"' .. ("R"):rep(50) .. '"',
    ["a number"] = "42",
    ["null"] = "null",
    ["an empty object"] = "{}",
    ["an object without tokens"] = '{"expires_in":3600,"scope":"user.profile"}',
    ["empty tokens"] = '{"access_token":"","refresh_token":""}',
    ["tokens that are no strings"] = '{"access_token":1,"refresh_token":["R"]}',
    ["tokens with line breaks"] = '{"access_token":"A\\r\\nX: y","refresh_token":"R\\n"}',
    ["a Python dict"] = "{'access_token': 'A', 'refresh_token': 'R'}",
    ["nested too deeply"] = RECORD:sub(1, -2) .. ',"x":' .. ("["):rep(5000) .. ("]"):rep(5000)
      .. "}",
    ["HTML"] = "<!DOCTYPE html><html><body>Sign in</body></html>",
  }

  for name, text in helper.sorted(damages) do
    it("is refused and kept: " .. name, function()
      local record = tokens.record(tokens.pair(sandbox), -10)
      write_private(text)
      check_refusal(DAMAGED, restore(record))
    end)
  end

  for name, text in helper.sorted({
    ["zeroes, as a power cut leaves them"] = ("\0"):rep(300),
    ["random bytes, NUL among them"] = noise(500, 0) .. "\0",
    ["UTF-16"] = "\255\254" .. RECORD:gsub(".", "%0\0"),
    ["a NUL in the record"] = (RECORD:gsub(",", ",\0", 1)),
  }) do
    it("is refused and kept: " .. name, function()
      local record = tokens.record(tokens.pair(sandbox), -10)
      write_private(text)
      check_refusal({ "is not a token record", "NUL", "Move that file away" }, restore(record))
    end)
  end

  it("is refused and kept: one larger than any record", function()
    local record = tokens.record(tokens.pair(sandbox), -10)
    write_private(RECORD .. (" "):rep(16 * 1024 * 1024))
    check_refusal({ "is not a token record", "MiB", "Move that file away" }, restore(record))
  end)

  it("is refused and kept while the token in memory is served", function()
    local client = client_with()
    local token = assert(client:token())
    write_private("{")
    assert.are.equal(token, client:token())
    assert_refused(DAMAGED, client:refresh())
    assert.are.equal(token, client:token())
    assert.are.equal("{", helper.read_file(fixture.path))
    assert.are.equal(1, fixture:posts())
    assert.are.equal("refreshed", fixture.events[1].name)
  end)

  it("leaves the temporary file alone, which counts when it is gone", function()
    local newest = tokens.record(tokens.pair(sandbox), 1000)
    write_private("\0\0\0")
    tokens.write(fixture.path .. ".tmp", newest)
    local before, asked = snapshot(fixture.path .. ".tmp"), fixture:posts()
    local client = client_with()
    assert_refused({ "NUL" }, client:token())
    assert.are.equal(before, snapshot(fixture.path .. ".tmp"))
    shell("rm " .. quote(fixture.path))
    assert.are.equal(newest.access_token, client:token())
    assert.are.equal(newest.refresh_token, tokens.read(fixture.path).refresh_token)
    assert.are.equal(asked, fixture:posts())
  end)
end)

describe("a token file that others own or can read", function()
  it("is refused when it belongs to another user", function()
    if is_root then
      local record = write_record(-10)
      shell("chown 65534 -- " .. quote(fixture.path))
      check_refusal({ "belongs to user 65534", "runs as user 0", "chown" }, function()
        shell("chown 0 -- " .. quote(fixture.path))
      end)
      assert.are_not.equal(record.refresh_token, tokens.read(fixture.path).refresh_token)
    else
      local token, message, code = client_with({ storage = "/etc/passwd" }):token()
      assert_refused({ "belongs to user 0", "chown" }, token, message, code)
      assert.are.equal(0, fixture:posts())
    end
  end)

  it("is refused when its lock belongs to another user", function()
    if not is_root then
      pending("only root can give a file away")
    end
    write_record(-10)
    write_private("", fixture.path .. ".lock")
    shell("chown 65534 -- " .. quote(fixture.path .. ".lock"))
    check_refusal({ fixture.path .. ".lock", "belongs to user 65534", "chown" }, function()
      shell("chown 0 -- " .. quote(fixture.path .. ".lock"))
    end)
  end)

  it("is refused when it cannot be read", function()
    skip_unless_plain()
    write_record(-10)
    local asked = fixture:posts()
    chmod("000")
    local code, message = run_plain()
    assert.are.equal("storage", code)
    assert.is_true(holds(message, { "Cannot open", fixture.path, "Permission denied",
      "Nothing was changed", "Let this program's user read and write" }), message)
    assert.are.equal(asked, fixture:posts())
    assert.are.equal("0", mode_of())
    chmod("600")
    local token = run_plain()
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(asked + 1, fixture:posts())
  end)

  for _, mode in ipairs({ "644", "640", "604", "666", "777", "660", "620" }) do
    it("is mended and used, with an event, when its mode is " .. mode, function()
      local record = write_record(1000)
      chmod(mode)
      local asked, bytes = fixture:posts(), helper.read_file(fixture.path)
      local client = client_with()
      assert.are.equal(record.access_token, client:token())
      assert.are.equal("repaired", fixture:names_of_events())
      assert.are.equal("600", mode_of())
      assert.are.equal(bytes, helper.read_file(fixture.path))
      assert.are.equal(asked, fixture:posts())
    end)
  end

  it("is refreshed into a private one whatever its mode was", function()
    write_record(-10)
    chmod("644")
    local client = client_with()
    assert(client:token())
    assert.are.equal("repaired refreshed", fixture:names_of_events())
    assert.are.equal("600", mode_of())
  end)

  it("is private from its first moment, whatever the umask", function()
    local token = attempt.run(fixture:env(), "umask 0; exec ")
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal("600", mode_of())
    assert.are.equal("600", mode_of(fixture.path .. ".lock"))
  end)

  -- A path may lead to another program's file by mistake, as root even to one
  -- of the system's, which would not work any more.
  for name, text in helper.sorted({
    ["a JSON file of another program"] = '{"name":"demo","version":"1.0.0"}\n',
    ["a text"] = "root:x:0:0:root:/root:/bin/bash\n",
    ["a program"] = "\127ELF\2\1\1\0\0\0\0\0",
  }) do
    it("keeps even its mode when it is " .. name, function()
      local record = tokens.record(tokens.pair(sandbox), -10)
      helper.write_file(fixture.path, text)
      chmod("755")
      check_refusal({ "token record" }, restore(record))
    end)
  end
end)

describe("in the place of a token file", function()
  local things = {
    ["a folder"] = { "mkdir %s", { "is a folder" } },
    ["a pipe"] = { "mkfifo %s", { "is a pipe, a socket or a device" } },
    ["a link that leads nowhere"] = { "ln -s /nowhere/at/all %s", { "is a symbolic link" } },
    ["a link to itself"] = { "ln -s token.json %s", { "is a symbolic link" } },
  }

  for name, thing in helper.sorted(things) do
    it(name .. " is refused", function()
      local record = tokens.record(tokens.pair(sandbox), -10)
      shell(thing[1]:format(quote(fixture.path)))
      check_refusal({ fixture.path, thing[2][1], "Give the path of" }, restore(record))
    end)
  end

  it("a socket is refused", function()
    local ok, unix = pcall(require, "socket.unix")
    if not ok then
      pending("this luasocket has no Unix sockets")
    end
    local record = tokens.record(tokens.pair(sandbox), -10)
    local make = type(unix) == "table" and (unix.stream or unix.tcp) or unix
    local listener = assert(make())
    assert(listener:bind(fixture.path))
    check_refusal({ fixture.path, "is a pipe, a socket or a device" }, restore(record))
    listener:close()
  end)

  it("a link to a good one is refused, and what it points to is left alone", function()
    local target = fixture.folder .. "/elsewhere.json"
    local record = write_record(-10)
    tokens.write(target, record)
    shell(("rm %s; ln -s %s %s"):format(quote(fixture.path), quote(target), quote(fixture.path)))
    local before = snapshot(target)
    check_refusal({ fixture.path, "is a symbolic link",
      "Give the path of the file that it points to" }, function()
        assert.are.equal(before, snapshot(target))
        restore(record)()
      end)
  end)

  it("a good one is used through a folder that is a link", function()
    write_record(-10)
    local link = helper.tmpdir() .. "/link"
    shell(("ln -s %s %s"):format(quote(fixture.folder), quote(link)))
    local client = client_with({ storage = link .. "/token.json" })
    assert.is_true(tokens.works(sandbox, (client:token())))
    assert.are.equal(sandbox:grant().refresh_token, tokens.read(fixture.path).refresh_token)
  end)

  for name, make in helper.sorted({
    ["a folder"] = "mkdir %s",
    ["a pipe"] = "mkfifo %s",
    ["a link"] = "ln -s /nowhere/at/all %s",
  }) do
    it(name .. " as its lock is refused", function()
      write_record(-10)
      shell(make:format(quote(fixture.path .. ".lock")))
      check_refusal({ fixture.path .. ".lock" }, function()
        shell("rm -r " .. quote(fixture.path .. ".lock"))
      end)
    end)
  end

  it("a folder where its temporary file used to be is in nobody's way", function()
    write_record(-10)
    shell("mkdir " .. quote(fixture.path .. ".tmp"))
    assert.is_true(tokens.works(sandbox, (client_with():token())))
    shell("rmdir " .. quote(fixture.path .. ".tmp"))
  end)

  for name, make in helper.sorted({ ["a pipe"] = "mkfifo", ["a link"] = "ln -s victim" }) do
    it(name .. " as its temporary file goes, and leads nowhere", function()
      write_record(-10)
      helper.write_file(fixture.folder .. "/victim", "not ours")
      shell(make .. " " .. quote(fixture.path .. ".tmp"))
      assert.is_true(tokens.works(sandbox, (client_with():token())))
      assert.are.equal("not ours", helper.read_file(fixture.folder .. "/victim"))
      assert.are.equal("regular file 600\n", shell("stat -c '%F %a' -- " .. quote(fixture.path)))
    end)
  end

  it("a second name of the same file keeps the old record", function()
    local record = write_record(-10)
    shell(("ln %s %s"):format(quote(fixture.path), quote(fixture.folder .. "/backup.json")))
    assert(client_with():token())
    local backup = tokens.read(fixture.folder .. "/backup.json")
    assert.are.equal(record.refresh_token, backup.refresh_token)
    assert.are_not.equal(record.refresh_token, tokens.read(fixture.path).refresh_token)
  end)
end)

describe("a token file that cannot be written", function()
  local READ_ONLY = { "Nothing was changed", "Let this program's user read and write" }

  -- Tries it in a process for whom modes hold; the record stays as it is.
  local function check_unwritable(words, mend)
    local before, asked = snapshot(fixture.path), fixture:posts()
    local code, message = run_plain()
    assert.are.equal("storage", code)
    assert.is_true(holds(message, words), message)
    assert.are.equal(before, snapshot(fixture.path))
    assert.are.equal(asked, fixture:posts())
    mend()
    assert.is_true(tokens.works(sandbox, (run_plain())))
    assert.are.equal(asked + 1, fixture:posts())
  end

  it("is served while its token is good: a folder without write permission", function()
    skip_unless_plain()
    local record = write_record(1000)
    local asked = fixture:posts()
    chmod("500", fixture.folder)
    local token = run_plain()
    chmod("700", fixture.folder)
    assert.are.equal(record.access_token, token)
    assert.are.equal(asked, fixture:posts())
    assert.are.equal("token.json\n", shell("ls -A " .. quote(fixture.folder)))
  end)

  it("is not refreshed: a folder without write permission", function()
    skip_unless_plain()
    write_record(-10)
    chmod("500", fixture.folder)
    check_unwritable(READ_ONLY, function()
      chmod("700", fixture.folder)
    end)
  end)

  it("is not refreshed: a folder without write permission, its lock there already", function()
    skip_unless_plain()
    write_record(-10)
    write_private("", fixture.path .. ".lock")
    chmod("500", fixture.folder)
    check_unwritable(READ_ONLY, function()
      chmod("700", fixture.folder)
    end)
  end)

  it("is not refreshed: a lock without write permission", function()
    skip_unless_plain()
    write_record(-10)
    write_private("", fixture.path .. ".lock")
    chmod("400", fixture.path .. ".lock")
    check_unwritable({ fixture.path .. ".lock", READ_ONLY[1], READ_ONLY[2] }, function()
      chmod("600", fixture.path .. ".lock")
    end)
  end)

  it("serves a token that still lives, with an event, when a refresh is due", function()
    skip_unless_plain()
    local record = write_record(100)
    local asked = fixture:posts()
    chmod("500", fixture.folder)
    local first, rest = attempt.run(fixture:env({ LUCID_REFRESH_TOKEN = false }), plain, [[
      local lucid = require("lucidauth")
      local event
      lucid.configure({ on_event = function(given) event = given end })
      print(lucid.token())
      print(event.name, event.code, event.message)
    ]])
    chmod("700", fixture.folder)
    assert.are.equal(record.access_token, first)
    assert.is_true(holds(rest, { "refresh_failed\tstorage\t", "Permission denied", READ_ONLY[1],
      READ_ONLY[2] }), rest)
    assert.are.equal(asked, fixture:posts())
    assert.are.equal(record.refresh_token, tokens.read(fixture.path).refresh_token)
  end)

  -- The file is replaced, not rewritten: its own mode does not protect it.
  it("is replaced all the same when it is only the file's own mode", function()
    skip_unless_plain()
    write_record(-10)
    chmod("400")
    assert.is_true(tokens.works(sandbox, (run_plain())))
    assert.are.equal("600", mode_of())
    assert.are.equal(sandbox:grant().refresh_token, tokens.read(fixture.path).refresh_token)
  end)

  it("is not refreshed when it is immutable", function()
    write_record(-10)
    local _, _, status = helper.run("chattr +i " .. quote(fixture.path))
    if status ~= 0 then
      pending("this user or this file system cannot make a file immutable")
    end
    finally(function()
      helper.run("chattr -i " .. quote(fixture.path))
    end)
    check_refusal({ fixture.path, "Operation not permitted", READ_ONLY[2] }, function()
      shell("chattr -i " .. quote(fixture.path))
    end)
    assert.are.equal("token.json\ntoken.json.lock\n", shell("ls -A " .. quote(fixture.folder)))
  end)

  it("says what is missing: its folder", function()
    fixture.path = fixture.folder .. "/no/such/token.json"
    local client = client_with()
    assert_refused({ "Cannot open", fixture.path, "No such file or directory",
      "The folder does not exist" }, client:token())
    assert.are.equal(0, fixture:posts())
    assert.are.equal("", shell("ls -A " .. quote(fixture.folder)))
    shell("mkdir -p " .. quote(fixture.folder .. "/no/such"))
    assert.is_true(tokens.works(sandbox, (assert(client:token()))))
  end)

  it("says what is wrong: a file where its folder should be", function()
    helper.write_file(fixture.folder .. "/file", "no folder")
    fixture.path = fixture.folder .. "/file/token.json"
    local client = client_with()
    assert_refused({ "Cannot open", fixture.path, "is not a folder" }, client:token())
    assert.are.equal(0, fixture:posts())
    assert.are.equal("no folder", helper.read_file(fixture.folder .. "/file"))
    shell(("cd %s; rm file; mkdir file"):format(quote(fixture.folder)))
    assert.is_true(tokens.works(sandbox, (assert(client:token()))))
  end)

  for name, prepare in helper.sorted({
    missing = function() end,
    ["a file"] = function(directory)
      helper.write_file(directory, "no folder")
    end,
  }) do
    it("says what is wrong: a folder for accounts that is " .. name, function()
      local directory = fixture.folder .. "/accounts"
      prepare(directory)
      local client = client_with({ storage = { type = "file", directory = directory } })
      assert_refused({ directory, "folder" }, client:token())
      assert.are.equal(0, fixture:posts())
      shell(("rm -f %s; mkdir %s"):format(quote(directory), quote(directory)))
      assert.is_true(tokens.works(sandbox, (assert(client:token()))))
    end)
  end
end)

describe("a folder in which others may write", function()

  local function open_to(mode)
    write_record(-10)
    shell(("chmod %s %s"):format(mode, quote(fixture.folder)))
  end

  after_each(function()
    shell("chmod 700 " .. quote(fixture.folder))
  end)

  it("is refused before anything is spent when everybody may", function()
    open_to("777")
    check_refusal({ "every user may replace the token file", "chmod o-w" }, function()
      shell("chmod 755 " .. quote(fixture.folder))
    end)
  end)

  it("is used when it has the sticky bit", function()
    open_to("1777")
    assert.is_true(tokens.works(sandbox, (client_with():token())))
    assert.are.equal("refreshed", fixture:names_of_events())
  end)

  it("is told of, once, when a group may", function()
    open_to("770")
    local client = client_with()
    assert(client:token())
    assert.are.equal("exposed refreshed", fixture:names_of_events())
    assert.is_true(holds(fixture.events[1].message, { "chmod g-w" }))
    assert(client:refresh())
    assert.are.equal("exposed refreshed refreshed", fixture:names_of_events())
  end)
end)

describe("a full disk", function()
  local own_mounts = find_own_mounts()

  -- Runs in a process with a small disk of its own. The record on
  -- it, expired, has come there already.
  local PROLOGUE = [[
    local helper = require("spec.helper")
    local tokens = require("spec.tokens")
    local lucid = require("lucidauth")
    local path = os.getenv("LUCID_TOKEN_FILE")
    local ballast = path:match("^.*/") .. "ballast"
    local function fill(kilobytes)
      local file = assert(io.open(ballast, "wb"))
      file:setvbuf("no")
      for _ = 1, kilobytes do
        if not file:write(("x"):rep(1024)) then break end
      end
      file:close()
    end
    local function remount(options)
      assert(os.execute("mount -o remount,bind," .. options .. " none "
        .. helper.quote(path:match("^(.*)/"))))
    end
    io.stdout:setvbuf("no")
    local events = {}
    lucid.configure({ timeout = 20, lock_timeout = 0.1, on_event = function(event)
      events[#events + 1] = event.name .. (event.code and " " .. event.code or "")
    end })
    local function say(...)
      print(table.concat(events, ", "), ...)
      events = {}
    end
  ]]

  -- Returns what the program printed, and a shell's command after it, which has
  -- the disk for %s; each line is split at its tabs.
  local function run_on_small_disk(program, afterwards)
    if not own_mounts then
      pending("this user can mount nothing")
    end
    local record = write_record(-10)
    local disk = helper.tmpdir()
    local under = ("exec %ssh -c %s sh "):format(own_mounts, quote(([[
      mount -t tmpfs -o size=1m,mode=700 tmpfs %s && cp -p %s %s && "$@"; %s
    ]]):format(disk, fixture.path, disk, (afterwards or "true"):format(disk))))
    local env = fixture:env({ LUCID_TOKEN_FILE = disk .. "/token.json" })
    local first, rest = attempt.run(env, under, PROLOGUE .. program)
    local lines = {}
    for line in (first .. "\n" .. rest):gmatch("([^\n]*)\n") do
      local fields = {}
      for field in (line .. "\t"):gmatch("([^\t]*)\t") do
        fields[#fields + 1] = field
      end
      lines[#lines + 1] = fields
    end
    return record, lines
  end

  it("is found before the refresh token is spent", function()
    local record, lines = run_on_small_disk([[
      local before = helper.read_file(path)
      fill(math.huge)
      say(lucid.token())
      say(lucid.token())
      say(tostring(helper.read_file(path) == before))
      os.remove(ballast)
      say(lucid.token())
      say(tokens.read(path).refresh_token)
    ]])
    for i = 1, 2 do
      local message = lines[i][3]
      assert.are.same({ "", "nil", message, "storage" }, lines[i])
      assert.is_true(holds(message, { "Cannot write", "No space left on device",
        "Nothing was changed", "The disk is full: free some space, then try again" }), message)
    end
    assert.are.same({ "", "true" }, lines[3])
    local grant = sandbox:grant()
    assert.are.same({ "refreshed", grant.access_token }, lines[4])
    assert.are.same({ "", grant.refresh_token }, lines[5])
    assert.are_not.equal(record.refresh_token, grant.refresh_token)
    assert.are.equal(2, fixture:posts())
  end)

  -- With this much on the disk, the mark before the POST still fits, but not
  -- the answer: not even without what is no part of the grant.
  local MUCH = "fill(950)\n"

  local function answer_too_large(field)
    sandbox:faults({ kind = "pass" })
    sandbox:faults({ kind = "transform", set = { [field or "expires"] = ("b"):rep(100 * 1024) } })
  end

  it("found too late costs side fields, and no tokens", function()
    answer_too_large("blob")
    local _, lines = run_on_small_disk(MUCH .. [[
      say(lucid.token())
      say(tostring(lucid.status().unsaved), tokens.read(path).refresh_token)
      say(tostring(tokens.read(path).blob))
    ]])
    local grant = sandbox:grant()
    assert.are.same({ "refreshed", grant.access_token }, lines[1])
    assert.are.same({ "", "false", grant.refresh_token }, lines[2])
    assert.are.same({ "", "nil" }, lines[3])
  end)

  it("found too late leaves the new tokens in use, until they can be saved", function()
    answer_too_large()
    local record, lines = run_on_small_disk(MUCH .. [[
      say(lucid.token())
      say(tostring(lucid.status().unsaved), tokens.read(path).refresh_token)
      local other = lucid.new({ timeout = 20, lock_timeout = 0.1 })
      say(other:token())
      other:close()
      os.remove(ballast)
      say(lucid.token())
      say(tostring(lucid.status().unsaved), tokens.read(path).refresh_token)
      say(lucid.new({}):token())
    ]])
    local grant = sandbox:grant()
    assert.are.same({ "refreshed, save_failed storage", grant.access_token }, lines[1])
    assert.are.same({ "", "true", record.refresh_token }, lines[2])
    assert.are.same({ "", "nil", lines[3][3], "locked" }, lines[3])
    assert.are.same({ "saved", grant.access_token }, lines[4])
    assert.are.same({ "", "false", grant.refresh_token }, lines[5])
    assert.are.same({ "", grant.access_token }, lines[6])
    assert.are.equal(2, fixture:posts())
  end)

  it("found too late is tried again when the client is closed", function()
    answer_too_large()
    local _, lines = run_on_small_disk(MUCH .. [[
      say(lucid.token())
      os.remove(ballast)
      lucid.close()
      say(tokens.read(path).refresh_token)
    ]])
    local grant = sandbox:grant()
    assert.are.same({ "refreshed, save_failed storage", grant.access_token }, lines[1])
    assert.are.same({ "saved", grant.refresh_token }, lines[2])
    assert.are.equal(2, fixture:posts())
  end)

  for name, ending in helper.sorted({
    ["by itself"] = "",
    ["by os.exit()"] = "os.exit(0)",
    ["by an error"] = "error('the end')",
  }) do
    it("found too late is tried again when the program ends " .. name, function()
      answer_too_large()
      local _, lines = run_on_small_disk(MUCH .. ([[
        say(lucid.token())
        os.remove(ballast)
        %s
      ]]):format(ending), "cat %s/token.json; echo")
      assert.are.same({ "refreshed, save_failed storage", sandbox:grant().access_token },
        lines[1])
      assert.is_true(holds(lines[#lines][1], { sandbox:grant().refresh_token }), lines[#lines][1])
    end)
  end

  it("is told from a disk that is read-only", function()
    local record, lines = run_on_small_disk([[
      remount("ro")
      say(lucid.token())
      remount("rw")
      say(tokens.read(path).refresh_token)
      say(lucid.token())
    ]])
    assert.are.equal("storage", lines[1][4])
    assert.is_true(holds(lines[1][3], { "Read-only file system", "Nothing was changed",
      "Make the file system writable" }), lines[1][3])
    assert.are.same({ "", record.refresh_token }, lines[2])
    assert.are.same({ "refreshed", sandbox:grant().access_token }, lines[3])
  end)

  it("serves a good token that is on a read-only one, modes that others can read and all",
    function()
      local _, lines = run_on_small_disk([[
        local record = tokens.read(path)
        record.expires_at = os.time() + 1000
        tokens.write(path, record)
        os.execute("chmod 644 " .. helper.quote(path))
        remount("ro")
        say(tostring(lucid.token() == record.access_token))
      ]])
      assert.are.same({ "", "true" }, lines[1])
      assert.are.equal(1, fixture:posts())
    end)

  -- The next best to it for those who cannot mount: files may not grow at all.
  -- Returns what this shell command, which has the interpreter and a program
  -- for %s, says of it; a refresh afterwards must work.
  local function run_limited(command, program)
    local record = write_record(-10)
    local before = helper.read_file(fixture.path)
    local out = helper.run(("(%s) 2>&1 | cat"):format(command):format(quote(helper.interpreter),
      quote(program)), fixture:env())
    assert.are.equal(before, helper.read_file(fixture.path))
    assert.are.equal(1, fixture:posts())
    assert.are.equal(record.refresh_token, sandbox:grant().refresh_token)
    local token = attempt.run(fixture:env())
    assert.is_true(tokens.works(sandbox, token))
    assert.are.equal(2, fixture:posts())
    return out
  end

  it("is not needed: a limit on file sizes is found before anything is spent", function()
    local out = run_limited("ulimit -f 0; exec %s -e %s",
      'print(require("lucidauth").token())')
    assert.is_true(holds(out, { "nil\tCannot write", "File too large", "Nothing was changed",
      "ulimit -f", "\tstorage\n" }), out)
  end)
end)

describe("LUCID_TOKEN_FILE", function()
  -- One call in a process that has the folder for its working directory.
  local function run_with(value, program)
    return attempt.run(fixture:env({ LUCID_TOKEN_FILE = value }),
      ("cd %s && exec "):format(quote(fixture.folder)), program)
  end

  for _, value in ipairs({ "/", ".", "..", "./", "accounts/", "accounts/.", "accounts/.." }) do
    it('as "' .. value .. '" is refused, and is named', function()
      shell("mkdir " .. quote(fixture.folder .. "/accounts"))
      local code, message = run_with(value)
      assert.are.equal("config", code)
      assert.is_true(holds(message, { "folder", "give the path of a file", "LUCID_TOKEN_FILE",
        "storage" }), message)
      assert.are.equal(0, fixture:posts())
      assert.are.equal("accounts\n", shell("ls -A " .. quote(fixture.folder)))
      assert.are.equal("", shell("ls -A " .. quote(fixture.folder .. "/accounts")))
    end)
  end

  for value, words in helper.sorted({
    accounts = { "is a folder" },
    ["/dev/null"] = { "is a pipe, a socket or a device" },
    ["/dev/full"] = { "is a pipe, a socket or a device" },
    ["/dev/stdin"] = { "is a symbolic link" },
    ["/proc/self/status"] = { "/proc/self/status" },
    ["~/token.json"] = { "The folder does not exist" },
    ["$HOME/token.json"] = { "The folder does not exist" },
    ["file:///tmp/token.json"] = { "The folder does not exist" },
    ["missing/token.json"] = { "The folder does not exist" },
    [("n"):rep(251)] = { "File name too long", "Choose a shorter name" },
    [("n/"):rep(5000) .. "token.json"] = { "File name too long", "Choose a shorter name" },
  }) do
    it(("as %q is refused"):format(value:sub(1, 30)), function()
      shell("mkdir " .. quote(fixture.folder .. "/accounts"))
      local code, message = run_with(value)
      assert.are.equal("storage", code)
      assert.is_true(holds(message, SAFE), message)
      assert.is_true(holds(message, words), message)
      assert.is_true(holds(message, { value:sub(-20) }), message)
      assert.are.equal(0, fixture:posts())
      assert.are.equal("accounts\n", shell("ls -A " .. quote(fixture.folder)))
    end)
  end

  for _, value in ipairs({
    "a b.json", "%s%n%d.json", "it's \"quoted\".json", "$(touch oops).json", "-rf",
    "line\nbreak.json", "t\195\182ken.json", "\255\254.json", "..json", ("n"):rep(250),
    "./././token.json", "accounts/../token.json", "//" .. "token.json",
  }) do
    local shown = value:gsub("[%c\128-\255]", "?"):sub(1, 30)
    it("as " .. shown .. " is a name like any other", function()
      shell("mkdir " .. quote(fixture.folder .. "/accounts"))
      if value:sub(1, 2) == "//" then
        value = "/" .. fixture.folder .. "//" .. value
      end
      local token = run_with(value)
      assert.is_true(tokens.works(sandbox, token))
      local file = value:sub(1, 1) == "/" and value or fixture.folder .. "/" .. value
      assert.are.equal(token, tokens.read(file).access_token)
      assert.is_nil(helper.read_file(fixture.folder .. "/oops"))
      assert.are.equal(token, (run_with(value)))
      assert.are.equal(1, fixture:posts())
    end)
  end

  it("that is empty means token_info.json here", function()
    local token = run_with("")
    assert.are.equal(token, tokens.read(fixture.folder .. "/token_info.json").access_token)
  end)

  it("stays what it was when the program changes its directory", function()
    local program = ([[
      local lucid = require("lucidauth")
      assert(lucid.token())
      assert(require("lfs").chdir(%q))
      print(lucid.refresh())
    ]]):format(helper.tmpdir())
    local token = run_with("token.json", program)
    assert.are.equal(token, tokens.read(fixture.path).access_token)
    assert.are.equal(2, fixture:posts())
  end)

  -- A client is made here, and used for the first time elsewhere.
  local function run_from_elsewhere(options, call)
    local elsewhere = helper.tmpdir()
    local token = run_with("token.json", ([[
      local client = require("lucidauth").new(%s)
      assert(require("lfs").chdir(%q))
      print(client:%s)
    ]]):format(options, elsewhere, call))
    assert.are.equal("", shell("ls -A " .. quote(elsewhere)))
    return token
  end

  it("stays what it was though the program leaves before the first call", function()
    local token = run_from_elsewhere("{}", "token()")
    assert.are.equal(token, tokens.read(fixture.path).access_token)
    assert.are.equal(1, fixture:posts())
  end)

  it("stays what it was as a directory too", function()
    shell("mkdir " .. quote(fixture.folder .. "/accounts"))
    local token = run_from_elsewhere('{ storage = { directory = "accounts" } }', "token()")
    assert.are.equal(token, tokens.read(fixture.folder .. "/accounts/default.json").access_token)
    assert.are.equal(1, fixture:posts())
  end)

  it("is called in messages what it was called in the settings", function()
    helper.write_file(fixture.folder .. "/token.json", "no record")
    local code, message = run_with("./token.json")
    assert.are.equal("storage", code)
    assert.is_true(holds(message, { "The token storage ./token.json does not hold" }), message)
  end)

  it("that is relative to a folder that is gone is named", function()
    local code, message = run_with("token.json", ([[
      local lfs, gone = require("lfs"), %q
      assert(lfs.chdir(gone) and lfs.rmdir(gone))
      local _, message, code = require("lucidauth").token()
      io.write(code, "\n", message)
    ]]):format(helper.tmpdir()))
    assert.are.equal("config", code)
    assert.is_true(holds(message, { "token.json", "No such file or directory", "LUCID_TOKEN_FILE",
      "Nothing was" }), message)
    assert.are.equal(0, fixture:posts())
  end)

  it("as an option cannot hold a NUL, where the system would cut it off", function()
    for _, storage in ipairs({ fixture.path .. "\0.json", { path = fixture.path .. "\0.json" },
      { directory = fixture.folder .. "\0x" } }) do
      local ok, message = pcall(client_with, { storage = storage })
      assert.is_false(ok)
      assert.is_true(holds(message, { "storage", "NUL" }), message)
    end
    assert.are.equal("", shell("ls -A " .. quote(fixture.folder)))
  end)

  it("has accounts whose names cannot hold one either", function()
    local client = client_with({ storage = { directory = fixture.folder } })
    for _, name in ipairs({ "token", "refresh", "authorization", "status" }) do
      local ok, message = pcall(function()
        return client[name](client, "a\0b")
      end)
      assert.is_false(ok)
      assert.is_true(holds(message, { "account", "NUL" }), message)
    end
    assert.are.equal("", shell("ls -A " .. quote(fixture.folder)))
  end)
end)
