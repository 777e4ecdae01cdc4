-- Shows a storage of your own: the tokens are in Redis, for processes on several machines.
--
--     lucid.configure { storage = require("redis_storage").new { host = "redis.internal" } }
--
-- It takes Debian's packages lua-redis and lua-cjson. docs/STORAGE.md explains its rules.

local cjson = require("cjson.safe")
local redis = require("redis")

-- A function below waits for Redis five times at most: connect, password, and three reads of the
-- answer. So it takes a second at most, which the lease reckons with.
local SECONDS_A_WAIT = 0.2

-- Only the owner's lock goes. Redis runs this as one step.
local UNLOCK = [[
  if redis.call("GET", KEYS[1]) == ARGV[1] then
    return redis.call("DEL", KEYS[1])
  end
  return 0
]]

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
---@param options? table host, port, path (of a socket), password, prefix, timeout, lease
function M.new(options)
  options = options or {}
  local owner = random_name()
  local prefix = options.prefix or "lucid:"
  -- seconds; `timeout` is the client's option of that name
  local lease = options.lease or 2 * (options.timeout or 30) + 60

  -- A connection for each command: there are few, and a forked child has none of its parent's.
  local function ask(command, ...)
    local client = redis.connect({
      host = options.host,
      port = options.port,
      scheme = options.path and "unix",
      path = options.path,
      timeout = SECONDS_A_WAIT,
    })
    client.network.socket:settimeout(SECONDS_A_WAIT, "t")
    if options.password then
      client:auth(options.password)
    end
    local answer = client[command](client, ...)
    client.network.socket:close()
    return answer
  end

  local storage = {}

  function storage.load(account)
    local text = ask("get", prefix .. account)
    if text then
      return assert(cjson.decode(text))
    end
    return nil
  end

  -- It does not ask whether the lock is still its own: these may be the only tokens that live.
  function storage.save(account, record)
    ask("set", prefix .. account, assert(cjson.encode(record)))
    return true
  end

  function storage.lock(account)
    local milliseconds = math.ceil(lease * 1000)
    return ask("set", prefix .. account .. ":lock", owner, "NX", "PX", milliseconds) == true
  end

  function storage.unlock(account)
    ask("eval", UNLOCK, 1, prefix .. account .. ":lock", owner)
  end

  return storage
end

return M
