--- Options, checked once and in one place. A wrong one raises; the error names the
--- option and the nearest valid name.

---@class LucidStorage
---@field type? "file"|"memory"
---@field path? string the file of one account (type "file")
---@field directory? string a folder with a file for each account (type "file")
---@field load? fun(account: string): table?, string? a storage of your own
---@field save? fun(account: string, record: table): any?, string?
---@field lock? fun(account: string): any?, string? false: somebody else has it
---@field unlock? fun(account: string)
---@field sleep? fun(seconds: number) how to wait without blocking: the client's `sleep`

---@class LucidOptions
---@field client_id? string LUCID_CLIENT_ID
---@field client_secret? string|false LUCID_CLIENT_SECRET; false: a public client
---@field refresh_token? string LUCID_REFRESH_TOKEN: starts an empty storage
---@field storage? string|LucidStorage LUCID_TOKEN_FILE, "./token_info.json"
---@field api_url? string LUCID_API_URL, "https://api.lucid.co"
---@field token_url? string <api_url>/oauth2/token
---@field introspection_url? string|false <api_url>/oauth2/token/introspect; none with a token_url
---@field token_request? "json"|"form"|"basic" "json"; with another's token_url "form"
---@field token_parameters? table<string, string> more parameters of a refresh: { audience = "..." }
---@field refresh_before? number seconds ahead of the expiry: 300
---@field refresh_wait? number seconds to wait for others' refresh while the token lives: 2
---@field timeout? number seconds a call may take, retries included: 30
---@field lock_timeout? number seconds after which a lock counts as stuck: 60
---@field default_lifetime? number seconds a token lives when the server does not say: 3600
---@field max_accounts? integer accounts kept in memory, the last ones used: 10000
---@field ca_file? string PEM file of trusted authorities instead of the system's
---@field background? boolean a thread refreshes ahead of need: true in an event loop, else false
---@field sleep? fun(seconds: number) the program's way to wait without blocking its event loop
---@field hold_signals? boolean a signal that would end the script waits for the tokens: true
---@field on_event? fun(event: LucidEvent)

local M = {}

local function wrong(level, ...)
  error(string.format(...), level + 1)
end

-- Optimal string alignment: a swap of neighbours counts as one slip.
local function distance(a, b)
  local before, row = {}, {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local above = row
    row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before = above
  end
  return row[#b]
end

local function nearest(name, valid)
  local best, least
  for candidate in pairs(valid) do
    local begun = candidate:sub(1, #name) == name
    local d = begun and 0 or distance(name, candidate)
    if not least or d < least or (d == least and candidate < best) then
      best, least = candidate, d
    end
  end
  return best
end

local function check_names(given, valid, what, level)
  for name in pairs(given) do
    if type(name) ~= "string" then
      wrong(level + 1, "%s takes named fields only", what)
    elseif valid[name] == nil then
      wrong(level + 1, "unknown %s \"%s\"; did you mean \"%s\"?", what, name, nearest(name, valid))
    end
  end
end

-- The value itself is never shown: it may be a secret in the wrong place.
local function check_type(value, kind, what, level)
  if type(value) ~= kind then
    wrong(level + 1, "%s must be a %s, not a %s", what, kind, type(value))
  end
end

local function text(name, value, level)
  check_type(value, "string", "option " .. name, level + 1)
  if value == "" then
    wrong(level + 1, "option %s is empty; leave it out instead", name)
  elseif value:find("\0", 1, true) then
    wrong(level + 1, "option %s holds a NUL byte; take it out", name)
  end
  return value
end

-- false is C's empty string: there is none, even if the environment names one.
local function text_or_false(name, value, level)
  return value == false and "" or text(name, value, level + 1)
end

local function seconds(name, value, level)
  check_type(value, "number", "option " .. name, level + 1)
  if not (value >= 0 and value < math.huge) then
    wrong(level + 1, "option %s must be a number of seconds, 0 or more", name)
  end
  return value
end

local function a_count(name, value, level)
  check_type(value, "number", "option " .. name, level + 1)
  if not (value >= 1 and value < 2 ^ 31 and value % 1 == 0) then
    wrong(level + 1, "option %s must be a whole number, 1 or more", name)
  end
  return value
end

local function a_boolean(name, value, level)
  check_type(value, "boolean", "option " .. name, level + 1)
  return value
end

local function a_function(name, value, level)
  check_type(value, "function", "option " .. name, level + 1)
  return value
end

local requests = { json = true, form = true, basic = true }

local function token_request(name, value, level)
  text(name, value, level + 1)
  if not requests[value] then
    wrong(level + 1, "option %s must be \"json\", \"form\" or \"basic\"; did you mean \"%s\"?",
      name, nearest(value, requests))
  end
  return value
end

-- Names and values in turn, in an order that is always the same. The core checks
-- the names.
local function parameters(name, value, level)
  check_type(value, "table", "option " .. name, level + 1)
  local names, list = {}, {}
  for field, content in pairs(value) do
    if type(field) ~= "string" or field:find("\0", 1, true) then
      wrong(level + 1, "option %s takes named fields only, as in { audience = \"...\" }", name)
    end
    check_type(content, "string", "a value of option " .. name, level + 1)
    if content:find("\0", 1, true) then
      wrong(level + 1, "a value of option %s holds a NUL byte; take it out", name)
    end
    names[#names + 1] = field
  end
  table.sort(names)
  for _, field in ipairs(names) do
    list[#list + 1] = field
    list[#list + 1] = value[field]
  end
  return list
end

local function storage(name, value, level)
  if type(value) ~= "string" and type(value) ~= "table" then
    wrong(level + 1, "option %s must be a path or a table, not a %s", name, type(value))
  end
  return type(value) == "table" and value or text(name, value, level + 1)
end

local checks = {
  client_id = text,
  client_secret = text_or_false,
  refresh_token = text,
  storage = storage,
  api_url = text,
  token_url = text,
  introspection_url = text_or_false,
  token_request = token_request,
  token_parameters = parameters,
  refresh_before = seconds,
  refresh_wait = seconds,
  timeout = seconds,
  lock_timeout = seconds,
  default_lifetime = seconds,
  max_accounts = a_count,
  ca_file = text,
  background = a_boolean,
  sleep = a_function,
  hold_signals = a_boolean,
  on_event = a_function,
}

local file_fields = { type = true, path = true, directory = true }
local memory_fields = { type = true }
local own_fields = { load = true, save = true, lock = true, unlock = true, sleep = true }

local function file_storage(given, level)
  check_names(given, file_fields, "field of storage", level + 1)
  if given.path and given.directory then
    wrong(level + 1, "storage has both path and directory; give one of them")
  end
  if given.directory then
    return "directory", text("storage.directory", given.directory, level + 1)
  end
  return "file", given.path and text("storage.path", given.path, level + 1)
end

local function own_storage(given, level)
  check_names(given, own_fields, "field of storage", level + 1)
  for name, value in pairs(given) do
    check_type(value, "function", "storage." .. name, level + 1)
  end
  if not given.load or not given.save then
    wrong(level + 1, "a storage of your own needs both functions, load and save")
  end
  if (given.lock == nil) ~= (given.unlock == nil) then
    wrong(level + 1, "a storage with lock needs unlock, and the other way round")
  end
end

local types = { file = true, memory = true }

local function kind_of(given, level)
  if given.type ~= nil then
    check_type(given.type, "string", "storage.type", level + 1)
    if not types[given.type] then
      wrong(level + 1, "unknown storage type \"%s\"; did you mean \"%s\"?", given.type,
        nearest(given.type, types))
    end
    return given.type
  end
  return (given.path or given.directory) and "file" or "custom"
end

-- Returns the kind, the path, and the functions of a storage in Lua. (No tail
-- calls: they would hide a level from error().)
local function storage_of(given, level)
  if given == nil or type(given) == "string" then
    return "file", given
  end
  local kind = kind_of(given, level + 1)
  if kind == "file" then
    local place, path = file_storage(given, level + 1)
    return place, path
  elseif kind == "memory" then
    check_names(given, memory_fields, "field of storage", level + 1)
    return "memory"
  end
  own_storage(given, level + 1)
  return "custom", "of your own (Lua functions)", given
end

--- Check options; raises at `level` (as of error(), seen from the caller).
---@param given LucidOptions
---@param level integer
---@return { core: table, functions: LucidStorage?, on_event: function?, sleep: function? }
function M.check(given, level)
  check_type(given, "table", "the argument", level + 1)
  check_names(given, checks, "option", level + 1)
  local options = {}
  for name, value in pairs(given) do
    options[name] = checks[name](name, value, level + 1)
  end
  local kind, path, functions = storage_of(options.storage, level + 1)
  if options.sleep and options.background == false then
    wrong(level + 1, "option sleep needs the background's thread; leave background out")
  end
  local on_event, sleep = options.on_event, options.sleep
  options.storage, options.path, options.on_event, options.sleep = kind, path, nil, nil
  return { core = options, functions = functions, on_event = on_event, sleep = sleep }
end

return M
