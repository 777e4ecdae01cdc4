--- An account's state as Prometheus text (exposition format 0.0.4).

local M = {}

local families = {
  { "refreshes_total", "counter", "Refreshes by this process." },
  { "refresh_failures_total", "counter", "Refreshes that failed, by code." },
  { "seconds_to_expiry", "gauge", "Seconds that the token in use has left; 0: none." },
  { "waiters", "gauge", "Callers that wait for a token." },
  { "generation", "gauge", "Of the storage; odd while a refresh is under way." },
  { "unsaved", "gauge", "1: the newest tokens are in this process's memory alone." },
}

local function escape(value)
  return (value:gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

local function labels(account, code)
  local text = 'account="' .. escape(account) .. '"'
  return "{" .. text .. (code and ',code="' .. code .. '"' or "") .. "}"
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

local function samples(status, account, waiters)
  local failures = {}
  for _, code in ipairs(sorted_keys(status.failures)) do
    failures[#failures + 1] = { labels(account, code), status.failures[code] }
  end
  local own = labels(account)
  return {
    refreshes_total = { { own, status.refreshes } },
    refresh_failures_total = failures,
    seconds_to_expiry = { { own, status.expires_in } },
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
        lines[#lines + 1] = ("%s%s %.17g"):format(name, sample[1], sample[2])
      end
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
