--- An account's state as Prometheus text (exposition format 0.0.4).

local tables = require "lucidauth.tables"
local printable, sorted_keys = tables.printable, tables.sorted_keys

local M = {}

local families = {
  { "refreshes_total", "counter", "Refreshes by this process." },
  { "refresh_failures_total", "counter", "Refreshes that failed, by code." },
  { "last_error", "gauge", "1: of the last failure that no success has followed, by code." },
  { "state", "gauge", "1: how the account stands, by state." },
  { "seconds_to_expiry", "gauge", "Seconds that the token in use has left; 0: none." },
  { "lifetime_seconds", "gauge", "That the token in use lives in all; 0: unknown." },
  { "last_refresh_timestamp_seconds", "gauge", "Time of this process's last refresh; 0: none." },
  { "retry_in_seconds", "gauge", "Until the server is asked again after a failure; 0: at once." },
  { "waiters", "gauge", "Callers that wait for a token." },
  { "generation", "gauge", "Of the storage; odd while a refresh is under way." },
  { "shared", "gauge", "1: other processes' refreshes are seen at once." },
  { "unsaved", "gauge", "1: the newest tokens are in this process's memory alone." },
}

local function escape(value)
  value = value:gsub("[^\n]+", printable)
  return (value:gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

local function labels(account, name, value)
  local text = 'account="' .. escape(account) .. '"'
  return "{" .. text .. (name and (',%s="%s"'):format(name, value) or "") .. "}"
end

-- The locale may have another decimal point.
local function number(value)
  return (("%.17g"):format(value):gsub("[^%w+-]+", "."))
end

local states = { "ready", "expired", "failing", "empty" }

local function samples(status, account, waiters)
  local failures, in_state, error = {}, {}, status.last_error
  for _, code in ipairs(sorted_keys(status.failures)) do
    failures[#failures + 1] = { labels(account, "code", code), status.failures[code] }
  end
  for i, state in ipairs(states) do
    in_state[i] = { labels(account, "state", state), state == status.state and 1 or 0 }
  end
  local own = labels(account)
  return {
    refreshes_total = { { own, status.refreshes } },
    refresh_failures_total = failures,
    last_error = error and { { labels(account, "code", error.code), 1 } } or {},
    state = in_state,
    seconds_to_expiry = { { own, status.expires_in } },
    lifetime_seconds = { { own, status.lifetime } },
    last_refresh_timestamp_seconds = { { own, status.last_refresh or 0 } },
    retry_in_seconds = { { own, status.retry_in or 0 } },
    shared = { { own, status.shared and 1 or 0 } },
    waiters = { { own, waiters } },
    generation = { { own, status.generation } },
    unsaved = { { own, status.unsaved and 1 or 0 } },
  }
end

--- The text.
---@param prefix string
---@param accounts { name: string, status: LucidStatus, waiters: integer }[]
---@return string
function M.render(prefix, accounts)
  local lines, found = {}, {}
  for i, account in ipairs(accounts) do
    found[i] = samples(account.status, account.name, account.waiters)
  end
  for _, family in ipairs(families) do
    local name = prefix .. family[1]
    lines[#lines + 1] = ("# HELP %s %s"):format(name, family[3])
    lines[#lines + 1] = ("# TYPE %s %s"):format(name, family[2])
    for _, account in ipairs(found) do
      for _, sample in ipairs(account[family[1]]) do
        lines[#lines + 1] = name .. sample[1] .. " " .. number(sample[2])
      end
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
