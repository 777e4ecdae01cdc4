--- One call for a token and all that came of it, for the specs on bad input.

local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local attempt = {}

--- A client that points at the sandbox, and the list that its events go to.
---@param sandbox helper.Sandbox
---@param options LucidOptions
---@return LucidClient client
---@return LucidEvent[] events
function attempt.client(sandbox, options)
  local events = {}
  local client = lucid.new(helper.merge({
    api_url = sandbox.url,
    client_id = sandbox.client_id,
    client_secret = sandbox.client_secret,
    on_event = function(event)
      events[#events + 1] = event
    end,
  }, options))
  return client, events
end

--- A new client's first call; nothing of an earlier failure is remembered.
---@param sandbox helper.Sandbox
---@param options LucidOptions
---@return { token?: string, message?: string, code?: LucidCode, events: LucidEvent[] }
function attempt.token(sandbox, options)
  local client, events = attempt.client(sandbox, options)
  local token, message, code = client:token()
  client:close()
  return { token = token, message = message, code = code, events = events }
end

---@param events LucidEvent[]
---@return string names with a space between them
function attempt.names(events)
  local names = {}
  for i, event in ipairs(events) do
    names[i] = event.name
  end
  return table.concat(names, " ")
end

local PROGRAM = [[
local token, message, code = require("lucidauth").token()
io.write(token or code, "\n", message or "", "\n")
]]

--- The same in a process of its own, which has everything from its environment.
---@param env table<string, string|false> LUCID_ variables that are not here are unset
---@param under string|nil what stands before the interpreter in the shell's command
---@param program string|nil Lua code instead of one call for a token
---@return string first line: the token or the code
---@return string rest the message
function attempt.run(env, under, program)
  local command = ("%s%s -e %s 2>&1"):format(under or "exec ",
    helper.quote(helper.interpreter), helper.quote(program or PROGRAM))
  local out = helper.run(command, tokens.env(env))
  return out:match("^([^\n]*)\n?(.*)$")
end

--- Whether a text holds all of these, as they stand.
---@param text string|nil
---@param parts string[]
---@return boolean
function attempt.holds(text, parts)
  for _, part in ipairs(parts) do
    if not helper.contains(text or "", part) then
      return false
    end
  end
  return true
end

return attempt
