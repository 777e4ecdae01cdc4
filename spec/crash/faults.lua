--- Faults on the real thing: every call that a refresh makes on the files of its
--- storage fails, with one error after another. Before the request nothing may
--- be spent; after it nothing may be lost: the tokens are served from memory and
--- saved as soon as the fault is over. An interrupted call is simply repeated.

local USAGE = [[
usage: spec/crash/faults [--full] [--call CALL] [--client lua|c]

Without --full: what the errors have in common is tried with EIO, what the
clients have in common with the C client; of the Lua client, how it ends.
]]

local socket = require("socket")
local fixture = require("spec.crash.fixture")

local CALLS = { "write", "fsync", "rename", "open", "fallocate", "mmap", "lock" }
local RARE_CALLS = { "read", "close", "stat", "unlink" }
-- POSIX has no signal interrupt these.
local UNINTERRUPTED = { stat = true, unlink = true }
local ERRORS = { "EIO", "ENOSPC", "EROFS", "EACCES", "EDQUOT", "EINTR" }

-- The exit code of a process that was killed.
local KILLED = 128 + 9

-- Opening this tells the tracer that the fault is over; it is never there.
local OVER = "/the fault is over"

local function steps(...)
  return { "token", "status", "open=" .. OVER, ... }
end

-- When these fail, all bytes of the record have been written, and the next
-- process can find them.
local BEHIND_THE_LAST_BYTE = { fsync = true, close = true, rename = true }

-- How many calls fail (0: all), and what the client does when it is over. If
-- `again`, it asks for a token again.
local KINDS = {
  once = { count = 1, again = true, steps = steps("token", "status", "close") },
  lasting = { count = 0, again = true, steps = steps("token", "status", "close") },
  closed = { count = 0, steps = steps("close") },
  returned = { count = 0, steps = steps() },
  exited = { count = 0, steps = steps("exit") },
  killed = { count = 0, killed = true, steps = { "token", "status", "run=kill -KILL $PPID" } },
  -- until the process has ended
  endless = { count = 0, endless = true, steps = { "token", "status", "close" } },
}

-- An interruption ends at some time.
local function count_of(kind, name)
  return name == "EINTR" and kind.count == 0 and 3 or kind.count
end

-- The lines of a client that begin with one of these words.
local function said(outcome, ...)
  local wanted, found = {}, {}
  for _, word in ipairs({ ... }) do
    wanted[word] = true
  end
  for _, line in ipairs(outcome.lines) do
    if wanted[line:match("^%w+")] then
      found[#found + 1] = line
    end
  end
  return found
end

-- What the client said -------------------------------------------------------

-- What came of the first call: "harmless", "refused" before anything was spent,
-- "kept" in memory.
local function classify(answers, statuses)
  local answer, status = answers[1] or "", statuses[1] or ""
  if answer:find("^token ") then
    return status:find(" unsaved ") and "kept" or "harmless"
  elseif answer:find("^failure storage ") or answer:find("^failure locked ") then
    return "refused"
  end
end

-- An interruption is nothing but a call to be repeated, and nobody notices.
local function is_unnoticed(outcome)
  return fixture.answer(outcome) and fixture.says(outcome, "status ready saved shared settled")
end

local function find_problem_in_first(result, outcome, report, error_name)
  if not result then
    return outcome.lines[1]
  elseif error_name == "EINTR" and not is_unnoticed(outcome) then
    return "an interrupted call was not repeated"
  elseif result == "refused" and report.faults[1].when == "after" then
    return "no token although the request was answered"
  elseif (result == "kept") ~= fixture.says(outcome, "event save_failed") then
    return "the event save_failed does not go with the status"
  end
end

-- When the fault is over.
local function find_problem_in_second(result, answers, statuses, outcome)
  if not (answers[2] or ""):find("^token ") then
    return "no token when the fault was over"
  elseif result ~= "refused" and answers[1] ~= answers[2] then
    return "another token when the fault was over"
  elseif not statuses[2]:find("^status ready saved ") then
    return statuses[2]
  elseif (result == "kept") ~= fixture.says(outcome, "event saved") then
    return "the event saved is missing, or too much"
  end
end

-- When the process has ended ----------------------------------------------------

local function find_problem_in_next(self, lost, spender)
  self:let_time_pass()
  local token, code, message = fixture.answer(self:follow({ "token" }))
  local grant = self.sandbox:grant()
  if self.sandbox:counts().reuses > 0 or grant.rotations ~= 1 then
    return "the refresh token was spent more than once"
  elseif not lost and not (token and self:works(token, grant)) then
    return "the next process has no token"
  elseif not lost then
    return self:find_fault_in_files(grant)
  elseif code ~= "lost_rotation" or not message:find("process " .. spender, 1, true) then
    return "the next process is not told what is lost"
  end
end

local function find_problem_at_end(self, call, result, kind, spender)
  local left = self.sandbox:grant()
  local lost = left.rotations > 0 and not self:holds(left.refresh_token)
  if lost and (result ~= "kept" or not (kind.endless or kind.killed)) then
    return "the tokens are lost"
  elseif lost and BEHIND_THE_LAST_BYTE[call] then
    return "the tokens are lost although all of them had been written"
  elseif result == "refused" and not kind.again and left.rotations > 0 then
    return "the refresh token was spent although nothing could be saved"
  end
  return find_problem_in_next(self, lost, spender), lost
end

---@return string result
---@return string|nil problem
local function judge(self, call, kind, error_name, outcome, report)
  local answers, statuses = said(outcome, "token", "failure"), said(outcome, "status")
  local result = classify(answers, statuses)
  local code = kind.killed and KILLED or 0
  local problem = outcome.code ~= code and "the process ended with " .. outcome.code
    or find_problem_in_first(result, outcome, report, error_name)
  if not problem and kind.again then
    problem = find_problem_in_second(result, answers, statuses, outcome)
  end
  if problem then
    return result, problem
  end
  local lost
  problem, lost = find_problem_at_end(self, call, result, kind, report.pid)
  return lost and "lost" or result, problem
end

-- The whole matrix -----------------------------------------------------------------

local LINE = "%-9s  %-6s  %-8s %5s  %8s  %7s  %4s  %4s  %5s"

local function new_row()
  return { faults = 0, harmless = 0, refused = 0, kept = 0, lost = 0, wrong = 0 }
end

local function add(sum, row)
  for name, value in pairs(row) do
    sum[name] = sum[name] + value
  end
end

local function print_row(call, error_name, kind_name, row)
  print(LINE:format(call, error_name, kind_name, row.faults, row.harmless, row.refused, row.kept,
    row.lost, row.wrong))
  io.stdout:flush()
end

-- nil: there is no such occurrence.
local function strike(self, call, error_name, kind, occurrence)
  self:reset(self:record(-10))
  local outcome, report = self:trace(("--fail %s:%s:%d:%d --lift %s"):format(call, error_name,
    occurrence, count_of(kind, error_name), "'" .. OVER .. "'"), kind.steps)
  if report.faults[1] then
    return report.faults[1], judge(self, call, kind, error_name, outcome, report)
  end
end

local function fail_each(self, call, error_name, kind_name)
  local row, occurrence = new_row(), 0
  repeat
    occurrence = occurrence + 1
    local fault, result, problem = strike(self, call, error_name, KINDS[kind_name], occurrence)
    if fault then
      row.faults = row.faults + 1
      row[result or "wrong"] = row[result or "wrong"] + 1
      if problem then
        row.wrong = row.wrong + (result and 1 or 0)
        print(("WRONG: %s number %d (%s, %s the request): %s"):format(call, occurrence,
          fault.object, fault.when, problem))
      end
    end
  until not fault
  if row.faults == 0 then
    print("WRONG: the client makes no such call")
    row.wrong = 1
  end
  print_row(call, error_name, kind_name, row)
  return row
end

local function each_row(options, client)
  local rows, call = {}, options.only
  local function add_rows(calls, errors, kinds)
    for _, name in ipairs(calls) do
      for _, error_name in ipairs(errors) do
        for _, kind in ipairs(kinds) do
          local possible = error_name ~= "EINTR" or not UNINTERRUPTED[name]
          if possible and (not call or call == name) then
            rows[#rows + 1] = { name, error_name, kind }
          end
        end
      end
    end
  end
  if options.full then
    add_rows(CALLS, ERRORS,
      { "once", "lasting", "closed", "returned", "exited", "killed", "endless" })
    add_rows(RARE_CALLS, ERRORS, { "once", "lasting", "killed", "exited" })
  elseif client == "c" then
    add_rows(CALLS, { "EIO", "EINTR" }, { "once" })
    add_rows({ "write", "fallocate" }, { "ENOSPC", "EDQUOT" }, { "once" })
    add_rows({ "lock" }, { "EACCES" }, { "once" })
    add_rows(CALLS, { "EIO" }, { "lasting" })
    add_rows({ "write", "fsync", "rename" }, { "EIO" }, { "killed", "endless" })
    add_rows(RARE_CALLS, { "EIO" }, { "once" })
    add_rows({ "unlink" }, { "EIO" }, { "lasting", "killed" })
  else
    add_rows({ "write", "fsync", "rename" }, { "EIO" }, { "once", "closed", "returned", "exited" })
  end
  return ipairs(rows)
end

local function run_client(client, options)
  local start, sum = socket.gettime(), new_row()
  local self = fixture.new(client)
  print("\n" .. fixture.names[client] .. "\n")
  print(LINE:format("call", "error", "lasts", "calls", "harmless", "refused", "kept", "lost",
    "wrong"))
  for _, row in each_row(options, client) do
    add(sum, fail_each(self, row[1], row[2], row[3]))
  end
  self.sandbox:stop()
  print(("\n%s: %d faults in %.0f s: %d harmless, %d refused before anything was spent, "
    .. "%d kept in memory and saved later, %d never to be saved and named as lost; %d wrong")
    :format(fixture.names[client], sum.faults, socket.gettime() - start, sum.harmless, sum.refused,
      sum.kept, sum.lost, sum.wrong))
  return sum.wrong == 0 and sum.faults > 0
end

fixture.main(arg, USAGE, "--call", { CALLS, RARE_CALLS }, run_client)
