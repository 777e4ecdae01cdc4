--- The sandbox's settings: their defaults, their limits, their flags.

local codec = require("lucidauth.sandbox.codec")

local settings = {}

local HOST = "127.0.0.1"

---@class lucidauth.sandbox.Settings
---@field host? string 127.0.0.1, nothing else
---@field port? integer 0: any free port
---@field client_id? string
---@field client_secret? string
---@field refresh_token? string of the account "default"; without it: random
---@field refresh_tokens? integer further accounts: account-1, account-2, ...
---@field accounts? (string|table)[] names, or tables { account, refresh_token }
---@field public_url? string the address in the metadata, if a proxy stands in front
---@field redirect_uris? string[] without any: every http URI on the loopback
---@field consent? "ask"|"allow"|"deny" the login page's answer
---@field lifetime? number seconds an access token lives
---@field refresh_lifetime? number seconds a refresh token lives
---@field code_lifetime? number seconds a code lives
---@field latency? number seconds before the token endpoint answers
---@field rotate_after_latency? boolean rotate after that pause, not before
---@field rotate? boolean a refresh kills the old pair
---@field punish_reuse? boolean a spent refresh token revokes its whole grant
---@field introspection? boolean
---@field clock? fun(): number epoch seconds

-- Name, kind, default, and the flag's text in --help, in this order. The
-- flag of a boolean that is true by default is its --no- form.
local SETTINGS = {
  { "port", "count", 0, "listen here; 0: any free port", fixed = true },
  { "host", "host", HOST, "always " .. HOST, fixed = true },
  { "client_id", "text", "sandbox-client", "the only client" },
  { "client_secret", "text", "sandbox-secret", "its secret" },
  { "refresh_token", "text", nil, "valid at start; else a random one",
    fixed = true },
  { "refresh_tokens", "count", 0, "so many further grants", fixed = true },
  { "accounts", "accounts", {}, "a further grant of this name; may repeat",
    fixed = true, flag = "account" },
  { "redirect_uris", "texts", {}, "allowed; may repeat; else any on loopback",
    flag = "redirect-uri" },
  { "public_url", "text", nil, "for the metadata, behind a proxy" },
  { "consent", "consent", "ask", "the login page: ask, allow or deny" },
  { "lifetime", "seconds", 3600, "of an access token" },
  { "refresh_lifetime", "seconds", 180 * 86400, "of a refresh token" },
  { "code_lifetime", "seconds", 300, "of an authorization code" },
  { "latency", "seconds", 0, "pause before the token endpoint answers" },
  { "rotate_after_latency", "boolean", false, "rotate after that pause" },
  { "rotate", "boolean", true, "refresh tokens stay as they are" },
  { "punish_reuse", "boolean", true, "a spent token does not end its grant" },
  { "introspection", "boolean", true, "have no introspection endpoint" },
}

local BY_NAME = {}
for _, setting in ipairs(SETTINGS) do
  BY_NAME[setting[1]] = setting
end

local function is_text(value)
  return type(value) == "string" and value ~= "" and not value:find("%c")
end

local function is_number(value)
  return type(value) == "number" and value >= 0 and value < math.huge
end

local function is_list_of(value, is_item)
  if type(value) ~= "table" then
    return false
  end
  for key, item in pairs(value) do
    if type(key) ~= "number" or not is_item(item) then
      return false
    end
  end
  return true
end

local function is_account(value)
  if type(value) ~= "table" then
    return is_text(value)
  end
  local token = value.refresh_token
  return is_text(value.account) and (token == nil or is_text(token))
end

local CHECKS = {
  text = { is_text, "text without control characters" },
  boolean = {
    function(value)
      return type(value) == "boolean"
    end,
    "true or false",
  },
  seconds = { is_number, "a number of seconds, 0 or more" },
  count = {
    function(value)
      return is_number(value) and value % 1 == 0
    end,
    "a whole number, 0 or more",
  },
  texts = {
    function(value)
      return is_list_of(value, is_text)
    end,
    "a list of texts",
  },
  accounts = {
    function(value)
      return is_list_of(value, is_account)
    end,
    "a list of names, or of { account, refresh_token }",
  },
  consent = {
    function(value)
      return value == "ask" or value == "allow" or value == "deny"
    end,
    '"ask", "allow" or "deny"',
  },
  host = {
    function(value)
      return value == HOST
    end,
    HOST .. ": the sandbox is for this machine only",
  },
}

--- The settings that hold when nothing is said.
---@return table
function settings.defaults()
  local values = {}
  for _, setting in ipairs(SETTINGS) do
    values[setting[1]] = setting[3]
  end
  return values
end

local function check(name, value, running)
  local setting = BY_NAME[name]
  if not setting then
    return "the sandbox has no setting " .. tostring(name)
  elseif running and setting.fixed then
    return "the setting " .. name .. " cannot change while the sandbox runs"
  end
  local is_valid, expectation = CHECKS[setting[2]][1], CHECKS[setting[2]][2]
  if not is_valid(value) then
    return "the setting " .. name .. " must be " .. expectation
  end
end

--- Changes settings: all that are named, or none.
---@param values table the settings to change
---@param changes table
---@param running boolean whether the sandbox has started already
---@return boolean|nil ok
---@return string|nil message
function settings.apply(values, changes, running)
  for name, value in pairs(changes) do
    local message = check(name, value, running)
    if message then
      return nil, message
    end
  end
  for name, value in pairs(changes) do
    values[name] = value
  end
  return true
end

--- The settings as they may be shown: without secrets.
---@param values table
---@return table
function settings.describe(values)
  local result = {}
  for _, setting in ipairs(SETTINGS) do
    local name = setting[1]
    result[name] = values[name]
  end
  result.client_secret, result.refresh_token, result.accounts = nil, nil, nil
  result.redirect_uris = codec.array(result.redirect_uris)
  return result
end

local function flag_of(setting)
  return setting.flag or (setting[1]:gsub("_", "-"))
end

local BY_FLAG = {}
for _, setting in ipairs(SETTINGS) do
  BY_FLAG[flag_of(setting)] = setting
end

local function parse_flag(options, flag, take_value)
  local denied = flag:match("^no%-(.+)$")
  local setting = BY_FLAG[flag] or BY_FLAG[denied]
  if not setting or (denied and setting[2] ~= "boolean") then
    return "the sandbox has no option --" .. flag
  end
  local name, kind = setting[1], setting[2]
  local value = take_value(kind == "boolean")
  if kind == "boolean" then
    options[name] = not denied
    return value and "the option --" .. flag .. " takes no value"
  end
  if not value then
    return "the option --" .. flag .. " needs a value"
  elseif kind == "texts" or kind == "accounts" then
    options[name] = options[name] or {}
    table.insert(options[name], value)
  elseif kind == "seconds" or kind == "count" then
    options[name] = tonumber(value) or value
  else
    options[name] = value
  end
end

-- Options of the program that are no settings of the sandbox.
local PROGRAM_FLAGS = {
  help = "boolean",
  ["ready-file"] = "text",
  ["until-stdin-closes"] = "boolean",
}

-- A walk over the arguments: the next flag, and a way to take its value.
local function each_flag(arguments)
  local place = 0
  return function()
    place = place + 1
    local argument = arguments[place]
    if not argument then
      return nil
    end
    local flag, value = argument:match("^%-%-([%w-]+)=(.*)$")
    local function take_value(is_switch)
      if not value and not is_switch then
        place = place + 1
        value = arguments[place]
      end
      return value
    end
    return flag or argument:match("^%-%-([%w-]+)$") or argument, take_value
  end
end

--- Reads a command line.
---@param arguments string[]
---@return table|nil options settings of the sandbox
---@return table|string program `help`, `ready_file`, `until_stdin_closes`;
--- or the fault
function settings.parse(arguments)
  local options, program = {}, {}
  for flag, take_value in each_flag(arguments) do
    local kind, message = PROGRAM_FLAGS[flag], nil
    if kind then
      local value = take_value(kind == "boolean")
      program[flag:gsub("-", "_")] = value or kind == "boolean"
    else
      message = parse_flag(options, flag, take_value)
    end
    if message then
      return nil, message
    end
  end
  return options, program
end

--- The text of --help.
---@return string
function settings.usage()
  local lines = {
    "A local Lucid to develop and test against. Options:",
    "",
  }
  for _, setting in ipairs(SETTINGS) do
    local flag = "--" .. flag_of(setting)
    if setting[2] ~= "boolean" then
      flag = flag .. " VALUE"
    elseif setting[3] then
      flag = "--no-" .. flag_of(setting)
    end
    lines[#lines + 1] = string.format("  %-26s %s", flag, setting[4])
  end
  lines[#lines + 1] = "  --ready-file PATH          gets the URL when it is up"
  lines[#lines + 1] = "  --until-stdin-closes       stop when stdin closes"
  return table.concat(lines, "\n") .. "\n"
end

return settings
