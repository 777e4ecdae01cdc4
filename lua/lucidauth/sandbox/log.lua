--- The requests to the sandbox and their outcomes. No token stands in here, only
--- the mark that the sandbox gave it: A1, A2 for access tokens, R1 for refresh
--- tokens, C1 for codes, in the order they were issued.

local codec = require("lucidauth.sandbox.codec")
local copy = require("lucidauth.tables").copy

local log = {}

-- A benchmark may ask millions of times.
local ENTRY_LIMIT = 10000

local COUNTS = {
  "connections", -- that carried at least one request
  "requests",
  "malformed",
  "authorizations", -- codes given
  "token_requests",
  "exchanges", -- codes turned into tokens
  "refreshes", -- refresh requests that were processed, with any outcome
  "rotations", -- refreshes that killed a pair and gave a new one
  "reuses", -- refresh tokens that came again after they were spent
  "refusals", -- token requests answered with an OAuth error
  "invalid_clients", -- at any endpoint
  "overlaps", -- token requests for a grant that had one unanswered already
  "introspections",
  "revocations",
  "api_requests",
  "api_401",
  "faults",
}

local Log = {}
Log.__index = Log

function log.new()
  local self = setmetatable({ counts = {}, entries = {}, first = 1, last = 0 },
    Log)
  for _, name in ipairs(COUNTS) do
    self.counts[name] = 0
  end
  return self
end

---@param name string one of COUNTS
function Log:count(name)
  self.counts[name] = self.counts[name] + 1
end

--- Adds an entry; the caller goes on filling it.
---@param entry table
---@return table entry
function Log:add(entry)
  self.last = self.last + 1
  entry.number = self.last
  self.entries[self.last] = entry
  if self.last - self.first >= ENTRY_LIMIT then
    self.entries[self.first] = nil
    self.first = self.first + 1
  end
  return entry
end

--- The counts and the latest entries, oldest first.
---@param limit integer|nil how many entries at most
---@return { counts: table<string, integer>, entries: table[] }
function Log:report(limit)
  local first = math.max(self.first, self.last + 1 - (limit or ENTRY_LIMIT))
  local entries = codec.array({})
  for number = first, self.last do
    entries[#entries + 1] = copy(self.entries[number])
  end
  return { counts = copy(self.counts), entries = entries }
end

return log
