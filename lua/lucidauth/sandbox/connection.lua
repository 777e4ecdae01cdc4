--- One client's connection: its requests, their faults, their log entries.

local control = require("lucidauth.sandbox.control")
local delivery = require("lucidauth.sandbox.delivery")
local endpoints = require("lucidauth.sandbox.endpoints")
local http = require("lucidauth.sandbox.http")
local stream = require("lucidauth.sandbox.stream")

local connection = {}

local LINGER_SECONDS = 5

local GET = { GET = true, HEAD = true }
local POST = { POST = true }
local PAGE = { GET = true, HEAD = true, POST = true }

local ROUTES = {
  ["/oauth2/token"] = { "token", POST, endpoints.token },
  ["/oauth2/token/introspect"] = { "introspect", POST, endpoints.introspect },
  ["/oauth2/token/revoke"] = { "revoke", POST, endpoints.revoke },
  ["/oauth2/authorize"] = { "authorize", PAGE, endpoints.authorize },
  ["/oauth2/authorizeAccount"] = {
    "authorize", PAGE, endpoints.authorize_account,
  },
  ["/.well-known/oauth-authorization-server"] = {
    "metadata", GET, endpoints.metadata,
  },
}
local API = { "api", nil, endpoints.api }

-- The field that holds the token or code an endpoint is asked about.
local SUBJECTS = {
  token = { "refresh_token", "code" },
  introspect = { "token" },
  revoke = { "token" },
}

-- Fills in the entry's fields that are known before the request is processed.
local function describe(self, name, request, entry)
  local subjects = SUBJECTS[name]
  local fields = subjects and endpoints.read_fields(request)
  if not fields then
    return nil
  end
  entry.grant_type = fields.grant_type
  local text = fields[subjects[1]] or fields[subjects[2]]
  local mark, grant = self.store:identify(text)
  entry.token, entry.account = mark, grant and grant.account
  return grant
end

local function process(self, route, request, entry)
  local allowed, answer = route[2], route[3]
  if allowed and not allowed[request.method] then
    entry.outcome = "bad_method"
    local methods = {}
    for method in pairs(allowed) do
      methods[#methods + 1] = method
    end
    return {
      status = 405,
      headers = { Allow = table.concat(methods, ", ") },
      json = { error = "method_not_allowed" },
    }
  end
  local ok, result = xpcall(answer, debug.traceback, self, request, entry)
  if ok then
    return result
  end
  self.reactor.on_error(result)
  entry.outcome = "server_error"
  return {
    status = 500,
    json = {
      error = "server_error",
      error_description = result:match("^[^\n]*"),
    },
  }
end

local function process_token(self, route, request, entry)
  local latency, late = self.values.latency, self.values.rotate_after_latency
  if latency > 0 and late then
    self.reactor:sleep(latency)
  end
  local answer = process(self, route, request, entry)
  if latency > 0 and not late then
    self.reactor:sleep(latency)
  end
  return answer
end

local function respond(self, one, route, entry)
  local fault = self.queue:take(route[1], entry.reused)
  if fault then
    self.journal:count("faults")
    entry.fault = fault.kind
    one.fault = fault
  end
  if fault and fault.when == "before" then
    if not delivery.is_late(fault) then
      entry.outcome = "fault"
      return delivery.send(one)
    end
    if not delivery.be_late(one) then
      return false
    end
    one.fault = nil
  end
  local run = route[1] == "token" and process_token or process
  one.answer = run(self, route, one.request, entry)
  entry.status = one.answer.status
  return delivery.send(one)
end

-- Two requests for one grant at the same time: a client that should have
-- waited for its own answer, or two that should have known of each other.
local function respond_watched(self, grant, ...)
  local unanswered = self.unanswered
  local others = unanswered[grant] or 0
  if others > 0 then
    self.journal:count("overlaps")
  end
  unanswered[grant] = others + 1
  local ok, result = pcall(respond, self, ...)
  unanswered[grant] = unanswered[grant] - 1
  if not ok then
    error(result, 0)
  end
  return result
end

local function answer_logged(self, line, request)
  local route = ROUTES[request.path] or API
  local name = route[1]
  local entry = self.journal:add({
    time = self.clock(),
    endpoint = name,
    method = request.method,
    path = request.path,
    connection = line.number,
    reused = line.requests > 1,
  })
  self.journal:count("requests")
  local grant = describe(self, name, request, entry)
  local one = { server = self, stream = line.stream, request = request }
  if name == "token" then
    self.journal:count("token_requests")
    if grant then
      return respond_watched(self, grant, one, route, entry)
    end
  end
  return respond(self, one, route, entry)
end

-- A connection counts once it has carried a request that is not a test's own.
local function count_connection(self, line)
  if line.journal ~= self.journal then
    line.journal = self.journal
    self.journal:count("connections")
  end
end

local function exchange(self, line, request)
  line.requests = line.requests + 1
  if control.owns(request.path) then
    return delivery.send({
      server = self,
      stream = line.stream,
      request = request,
      answer = control.answer(self, request),
    })
  end
  count_connection(self, line)
  return answer_logged(self, line, request)
end

local function turn_away(self, line, problem)
  count_connection(self, line)
  self.journal:count("malformed")
  local head, body = http.format({
    status = problem.status,
    json = { error = "invalid_request", error_description = problem.message },
  }, false)
  line.stream:allow(LINGER_SECONDS)
  line.stream:send(head .. body)
  -- To close with bytes unread would reset the connection, and the answer
  -- would be lost.
  line.stream:finish()
  line.stream:drain()
end

local function converse(self, line)
  local request, problem
  repeat
    request, problem = http.read(line.stream)
    if problem then
      turn_away(self, line, problem)
    end
  until not request or not exchange(self, line, request)
end

--- Answers the requests of one connection, until it ends.
---@param self lucidauth.sandbox.Server
---@param client table an accepted socket
function connection.serve(self, client)
  self.accepted = self.accepted + 1
  local line = {
    number = self.accepted,
    stream = stream.new(self.reactor, client),
    requests = 0,
  }
  self.open[line] = true
  local ok, message = xpcall(converse, debug.traceback, self, line)
  self.open[line] = nil
  line.stream:close()
  if not ok then
    self.reactor.on_error(message)
  end
end

return connection
