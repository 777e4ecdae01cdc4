-- A disk that is really full and one that is really read-only, found before the
-- refresh token is spent or just after.

local helper = require("spec.helper")
local fixture = require("spec.crash.fixture")

local quote = helper.quote

-- Mounts that nobody else sees: as root, or as the root of a namespace of one's
-- own.
local function find_namespace()
  for _, words in ipairs({ "unshare -m", "unshare -Urm" }) do
    local _, _, code = helper.run(words .. " mount -t tmpfs tmpfs /mnt")
    if code == 0 then
      return words
    end
  end
end

local namespace = find_namespace()
local within = namespace and it or pending

for client, name in pairs({ lua = "the Lua module", c = "the C library" }) do
  describe("a disk that is no use to " .. name, function()
    local self, ballast

    setup(function()
      self = fixture.new(client)
      ballast = quote(self.folder .. "/ballast")
    end)

    teardown(function()
      self.sandbox:stop()
    end)

    before_each(function()
      self:reset(self:record(-10))
    end)

    -- Runs shell commands where the folder is a small disk of its own, with the
    -- token file on it.
    local function run(...)
      local record = quote(self.folder .. ".record")
      local commands = {
        "set -e",
        ("cp -p %s %s"):format(quote(self.path), record),
        "mount -t tmpfs -o size=32k,mode=0700 tmpfs " .. quote(self.folder),
        ("cp -p %s %s"):format(record, quote(self.path)),
        ...,
      }
      local outcome = self:run(namespace .. " sh -c " .. quote(table.concat(commands, "\n")))
      assert.are.equal(0, outcome.code, table.concat(outcome.lines, "\n"))
      return outcome.lines
    end

    local function fill()
      return ("if dd if=/dev/zero of=%s bs=512 2>/dev/null; then exit 1; fi"):format(ballast)
    end

    -- The disk that is there keeps its open files; whoever opens another one
    -- meets this one.
    local function make_read_only()
      local folder = quote(self.folder)
      return ("mount --bind %s %s && mount -o remount,bind,ro %s"):format(folder, folder, folder)
    end

    local function token_line()
      return "token " .. self.sandbox:grant().access_token
    end

    local function assert_refused(line, cause)
      assert.is_truthy(line:find("^failure storage .*" .. cause), line)
    end

    local function assert_spent_once()
      local counts = self.sandbox:counts()
      assert.are.same({ 1, 0 }, { counts.rotations, counts.reuses })
    end

    within("is full before: nothing is spent", function()
      local lines = run(fill(), self:command({ "token", "status", "token" }))
      assert_refused(lines[1], "disk is full")
      assert.is_truthy(lines[2]:find("^status %w+ saved "))
      assert_refused(lines[3], "disk is full")
      assert.are.equal(0, self.sandbox:counts().token_requests)
    end)

    within("is full before: there is a token when there is space", function()
      local lines = run(fill(), self:command({ "token", "run=rm " .. ballast, "token", "status" }),
        self:command({ "token" }))
      assert_refused(table.remove(lines, 1), "disk is full")
      assert.are.same({ "event refreshed", token_line(), "status ready saved shared settled",
        token_line() }, lines)
      assert_spent_once()
    end)

    within("is full when an earlier process's request is settled: nothing is spent", function()
      self:trace("--kill before:1:connect:socket", { "token" })
      assert.are.equal(0, self.sandbox:counts().token_requests)
      self:let_time_pass()
      self:forget_lock() -- on the disk that is full there is another lock file
      local lines = run(fill(), self:command({ "token", "run=rm " .. ballast, "token" }))
      assert_refused(lines[1], "disk is full")
      assert_spent_once()
    end)

    within("is full just after: the tokens are saved, in space that was held for them", function()
      local lines = run(self:command(
        { "token", "status" },
        self:tracer("--at-connect " .. quote(fill()))), self:command({ "token" }))
      assert.are.same({ "event refreshed", token_line(), "status ready saved shared settled",
        token_line() }, lines)
      assert_spent_once()
    end)

    within("is full just after: the tokens are saved when the process ends", function()
      for _, ending in ipairs({ "close", "exit" }) do
        self:reset(self:record(-10))
        local lines = run(self:command({ "token", "run=rm " .. ballast, ending },
          self:tracer("--at-connect " .. quote(fill()))), self:command({ "token" }))
        assert.are.equal(token_line(), lines[2])
        assert.are.equal(token_line(), lines[#lines])
        assert_spent_once()
      end
    end)

    within("is read-only before: nothing is spent", function()
      local lines = run(make_read_only(), self:command({ "token", "status" }))
      assert_refused(lines[1], "writable")
      assert.are.equal(0, self.sandbox:counts().token_requests)
    end)

    within("is read-only: a token that lives is served", function()
      self:reset(self:record(1000))
      local lines = run(make_read_only(), self:command({ "token", "status" }))
      assert.are.equal("token oauth2-a-of-an-earlier-day", lines[1])
      assert.is_truthy(lines[2]:find("^status ready saved private"))
    end)

    within("is read-only just after: the tokens are saved by what was opened before", function()
      local lines = run(self:command(
        { "token", "status", "run=umount " .. quote(self.folder), "token", "status" },
        self:tracer("--at-connect " .. quote(make_read_only()))), self:command({ "token" }))
      assert.are.same({ "event refreshed", token_line(), "status ready saved shared settled",
        token_line(), "status ready saved shared settled", token_line() }, lines)
      assert_spent_once()
    end)
  end)
end
