-- Shows a storage of your own: the tokens are in a SQLite database, for processes on one
-- machine.
--
--     local tokens = require("sqlite_storage").new { path = "/var/lib/lucid/tokens.db" }
--     lucid.configure { storage = tokens }
--
-- It takes Debian's packages lua-sql-sqlite3 and lua-cjson. docs/STORAGE.md explains its rules.

local cjson = require("cjson.safe")
local environment = require("luasql.sqlite3").sqlite3()

-- How long a function below waits for another process's transaction. The lease reckons with a
-- second.
local MILLISECONDS_A_CALL = 900

local TOKENS = [[
  CREATE TABLE IF NOT EXISTS lucid_tokens (account TEXT PRIMARY KEY, record TEXT NOT NULL)]]

local LOCKS = [[
  CREATE TABLE IF NOT EXISTS lucid_locks
    (account TEXT PRIMARY KEY, owner TEXT NOT NULL, ends REAL NOT NULL)]]

local LOAD = "SELECT record FROM lucid_tokens WHERE account = ?1"

local SAVE = [[
  INSERT INTO lucid_tokens VALUES (?1, ?2)
    ON CONFLICT (account) DO UPDATE SET record = excluded.record]]

-- Takes the row that is not there, or whose lease is over. NOW is in epoch seconds.
local LOCK = ([[
  INSERT INTO lucid_locks VALUES (?1, ?2, NOW + ?3)
    ON CONFLICT (account) DO UPDATE SET owner = excluded.owner, ends = excluded.ends
    WHERE ends < NOW]]):gsub("NOW", "((julianday('now') - 2440587.5) * 86400.0)")

local UNLOCK = "DELETE FROM lucid_locks WHERE account = ?1 AND owner = ?2"

-- Tells this storage's locks from others'.
local function random_name()
  local file = assert(io.open("/dev/urandom", "rb"))
  local bytes = file:read(16)
  file:close()
  return (bytes:gsub(".", function(byte)
    return ("%02x"):format(byte:byte())
  end))
end

local M = {}

--- One storage for one client in one process: its locks are its own.
---@param options table path, timeout, lease
function M.new(options)
  local owner = random_name()
  -- seconds; `timeout` is the client's option of that name
  local lease = options.lease or 2 * (options.timeout or 30) + 60

  -- A connection for each statement: a forked child must not use its parent's. SQLite commits each
  -- statement by itself, and has it on the disk when it returns.
  local function run(statement, ...)
    local connection = assert(environment:connect(options.path, MILLISECONDS_A_CALL))
    local values = {}
    for i, value in ipairs({ ... }) do
      values[i] = "'" .. connection:escape(value) .. "'"
    end
    local text = statement:gsub("%?(%d)", function(place)
      return values[tonumber(place)]
    end)
    local result, message = connection:execute(text)
    local row
    if type(result) == "userdata" then
      row = result:fetch()
      result:close()
    end
    connection:close()
    return assert(result, message), row
  end

  run(TOKENS)
  run(LOCKS)

  local storage = {}

  function storage.load(account)
    local _, text = run(LOAD, account)
    if text then
      return assert(cjson.decode(text))
    end
    return nil
  end

  -- It does not ask whether the lock is still its own: these may be the only tokens that live.
  function storage.save(account, record)
    run(SAVE, account, assert(cjson.encode(record)))
    return true
  end

  function storage.lock(account)
    return run(LOCK, account, owner, ("%.3f"):format(lease)) > 0
  end

  function storage.unlock(account)
    run(UNLOCK, account, owner)
  end

  return storage
end

return M
