-- Servers that fail, refuse or talk nonsense: whatever they do, the stored
-- tokens are still there afterwards, and the next call works when they do.

local socket = require("socket")

local attempt = require("spec.attempt")
local helper = require("spec.helper")
local parallel = require("spec.parallel")
local tokens = require("spec.tokens")

local holds = attempt.holds

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

-- Most of what they do is to wait for the flow's pauses.
local it = parallel.deal(11, it, teardown)

-- The record that is stored before the call, and the requests until then.
local stored, asked

local function requests()
  return sandbox:counts().token_requests - asked.token_requests
end

local function introspections()
  return sandbox:counts().introspections - asked.introspections
end

-- Stores genuine tokens, the access token with `left` seconds to live.
local function store(left)
  stored = fixture:store(left, { note = { by = "another program" } })
  asked = sandbox:counts()
end

local function call(options)
  return attempt.token(sandbox, helper.merge({ storage = fixture.path, timeout = 5 }, options))
end

-- A fault that strikes as often as it is met, unless it says otherwise.
local function always(fault)
  return helper.merge({ times = "always" }, fault)
end

local ADVICE = {
  network = "Check the network and LUCID_API_URL",
  timeout = "Check the network and LUCID_API_URL",
  rate_limited = "A later call tries again",
  server_error = "A later call tries again",
  bad_response = "Check LUCID_API_URL",
  invalid_client = "Check LUCID_CLIENT_ID and LUCID_CLIENT_SECRET",
  invalid_grant = "Log in to Lucid again",
  lost_rotation = "Log in to Lucid again",
}

local function says_what_is_safe(message)
  for _, words in ipairs({ "stored tokens are untouched", "still alive, and stored",
    "stored record is kept", "kept in the storage", "everything is stored",
    "What the server sent is stored" }) do
    if holds(message, { words }) then
      return true
    end
  end
  return false
end

local function assert_failed(result, code, words)
  assert.is_nil(result.token)
  assert.are.equal(code, result.code, result.message)
  assert.is_true(holds(result.message, words or {}), result.message)
  assert.is_true(says_what_is_safe(result.message), result.message)
  assert.is_true(holds(result.message, { ADVICE[code] }), result.message)
end

-- Both tokens, and what others keep beside them, are on the disk.
local function assert_still_stored(is_pending)
  local record = tokens.read(fixture.path)
  assert.are.equal(stored.refresh_token, record.refresh_token)
  assert.are.equal(stored.access_token, record.access_token)
  assert.are.equal(stored.expires_at, record.expires_at)
  assert.are.same(stored.note, record.note)
  assert.are.equal(is_pending or false, record.pending ~= nil)
  return record
end

-- The server's "later" is kept with the record, for all processes.
local function let_later_come()
  local record = tokens.read(fixture.path)
  if record.failure then
    record.failure["until"] = 0
    tokens.write(fixture.path, record)
  end
end

-- A new client, since one that has failed remembers it for a while.
local function assert_recovers()
  sandbox:clear_faults()
  let_later_come()
  local before = requests()
  local result = call()
  assert.is_true(tokens.works(sandbox, (assert(result.token, result.message))))
  assert.are.equal(sandbox:grant().refresh_token, tokens.read(fixture.path).refresh_token)
  assert.are.equal(before + 1, requests())
  return result
end

-- A POST whose outcome is not known is sent again when introspection calls the
-- refresh token alive, three times at most.
local RESENT = 4

local TRUNCATED = '{"access_token":"oauth2-a-0123456789","expires_in":3600,"refresh_tok'

local HTML = { ["Content-Type"] = "text/html" }

local function json(status, body, headers)
  return { kind = "answer", status = status, body = body, headers = headers }
end

local function text(status, body, headers)
  return { kind = "answer", status = status, body = body, headers = headers or HTML }
end

local function filler(count, size)
  local headers = {}
  for i = 1, count do
    headers["X-Filler-" .. i] = ("x"):rep(size)
  end
  return headers
end

-- The outcome of each for a refresh that the server has not carried out.
local failures = {
  ["hangs"] = {
    { kind = "hang" }, "timeout", { "did not answer in time" }, posts = 1, timeout = helper.SHORT,
  },
  ["closes the connection"] = {
    { kind = "close" }, "network", { "lost before its answer was complete" }, posts = RESENT,
  },
  ["resets the connection"] = {
    { kind = "close", reset = true }, "network", { "lost before its answer was complete" },
    posts = RESENT,
  },
  ["stops in the middle of its answer"] = {
    text(200, '{"access_token":"oauth2-a-01', { ["Content-Length"] = 1000 }),
    "network", { "lost before its answer was complete" }, posts = RESENT,
  },
  ["answers without end"] = {
    { kind = "flood", when = "before" }, "bad_response", { "far too long", "HTTP 200" },
    posts = RESENT,
  },
  ["has headers without end"] = {
    text(200, "{}", filler(600, 1024)), "network", { "headers never end" }, posts = RESENT,
  },
  ["has a header line without end"] = {
    text(200, "{}", filler(1, 600 * 1024)), "network", { "lost before its answer was complete" },
    posts = RESENT, never = { "emory" },
  },
  ["answers with a page"] = {
    text(200, "<html><body>Sign in to the guest network</body></html>"),
    "bad_response", { "holds no token", "HTTP 200" }, posts = RESENT,
  },
  ["answers with nothing"] = {
    text(200, ""), "bad_response", { "holds no token", "HTTP 200" }, posts = RESENT,
  },
  ["answers 204"] = {
    { kind = "answer", status = 204 }, "bad_response", { "holds no token", "HTTP 204" },
    posts = RESENT,
  },
  ["answers {}"] = { text(200, "{}"), "bad_response", { "holds no token" }, posts = RESENT },
  ["answers null"] = { text(200, "null"), "bad_response", { "holds no token" }, posts = RESENT },
  ["answers []"] = { text(200, "[]"), "bad_response", { "holds no token" }, posts = RESENT },
  ["answers with half an object"] = {
    text(200, TRUNCATED), "bad_response", { "holds no token" }, posts = RESENT,
  },
  ["answers 500"] = {
    json(500, { error = "server_error", error_description = "try another day" }),
    "server_error", { "failed", "HTTP 500", "server_error", "try another day" }, posts = RESENT,
  },
  -- what a gateway has given up on is given five seconds, which is all that this call has
  ["answers 502 with a page"] = {
    text(502, "<html>Bad Gateway</html>"), "server_error", { "HTTP 502" }, posts = 1,
  },
  ["answers 504"] = { text(504, ""), "server_error", { "HTTP 504" }, posts = 1 },
  ["answers 503 without Retry-After"] = {
    text(503, "down"), "server_error", { "HTTP 503" }, posts = RESENT,
  },
  ["answers 408"] = {
    text(408, ""), "timeout", { "gave up waiting", "HTTP 408" }, posts = RESENT,
  },
  ["answers with a status of its own"] = {
    text(799, "?"), "bad_response", { "makes no sense", "HTTP 799" }, posts = RESENT,
  },
  ["answers 429 with Retry-After"] = {
    text(429, "", { ["Retry-After"] = "3600" }), "rate_limited", { "slow down", "HTTP 429" },
    posts = 1,
  },
  ["answers 503 with Retry-After"] = {
    text(503, "", { ["Retry-After"] = "3600" }), "server_error",
    { "temporarily unavailable", "HTTP 503" }, posts = 1,
  },
  ["answers 429 with a date to come"] = {
    text(429, "", { ["Retry-After"] = "Fri, 01 Jan 2100 00:00:00 GMT" }), "rate_limited",
    { "slow down" }, posts = 1,
  },
  ["answers 403 invalid_client"] = {
    json(403, { error = "invalid_client", error_description = "no such app" }),
    "invalid_client", { "HTTP 403", "no such app", "disabled" }, posts = 1,
  },
  ["answers 401 invalid_client"] = {
    json(401, { error = "invalid_client" }), "invalid_client", { "HTTP 401" }, posts = 1,
  },
  ["answers 403 without a word"] = { text(403, ""), "invalid_client", { "HTTP 403" }, posts = 1 },
  ["answers 400 invalid_grant"] = {
    json(400, { error = "invalid_grant", error_description = "not today" }),
    "invalid_grant", { "HTTP 400", "invalid_grant", "not today" }, posts = 1,
  },
  ["answers 400 to the whole request"] = {
    json(400, { error = "invalid_request" }), "bad_response",
    { "refused the request", "HTTP 400", "invalid_request" }, posts = 1,
  },
  ["answers 400 with a page"] = {
    text(400, "<html>Bad Request</html>"), "bad_response", { "HTTP 400" }, posts = 1,
  },
  ["answers 404"] = {
    json(404, { code = "notFound", message = "no such path", requestId = "1" }),
    "bad_response", { "HTTP 404", "notFound", "no such path" }, posts = 1,
  },
  ["answers 405"] = { text(405, ""), "bad_response", { "HTTP 405" }, posts = 1 },
  ["answers 200 with invalid_grant"] = {
    json(200, { error = "invalid_grant" }), "invalid_grant", { "HTTP 200" }, posts = 1,
  },
  ["answers 200 with bad_refresh_token"] = {
    json(200, { error = "bad_refresh_token" }), "invalid_grant",
    { "HTTP 200", "bad_refresh_token" }, posts = 1,
  },
  ["answers 200 with invalid_grant as a form"] = {
    text(200, "error=invalid_grant&error_description=not%20today"), "invalid_grant",
    { "not today" }, posts = 1,
  },
  ["answers with an error that is an object"] = {
    json(400, { error = { type = "strange", status = 7 } }), "bad_response",
    { "HTTP 400", "strange" }, posts = 1,
  },
  ["answers with an error that is a number"] = {
    json(400, { error = 1042 }), "bad_response", { "HTTP 400", "1042" }, posts = 1,
  },
}

for _, status in ipairs({ 301, 302, 303, 307, 308 }) do
  failures["redirects with " .. status] = {
    text(status, "moved", { Location = "https://user:word@other.example:8443/deep?q=1#f" }),
    "bad_response", { "redirects to other.example (", "HTTP " .. status }, posts = 1,
    never = { "8443", "deep", "user", "word" },
  }
end

describe("a server that", function()
  for name, case in helper.sorted(failures) do
    local fault, code, words = case[1], case[2], case[3]

    it(name .. " costs nothing but time", function()
      store(-10)
      local grant = sandbox:grant()
      sandbox:faults(always(fault))
      local result = call({ timeout = case.timeout })
      assert_failed(result, code, words)
      for _, word in ipairs(case.never or {}) do
        assert.is_false(holds(result.message, { word }), result.message)
      end
      assert.are.equal("refresh_failed", attempt.names(result.events))
      assert.are.equal(code, result.events[1].code)
      assert.are.equal(result.message, result.events[1].message)
      assert.are.equal(case.posts, requests())
      assert_still_stored()
      assert.are.same(grant, sandbox:grant())
      assert_recovers()
    end)

    it(name .. " does not stop a token that still lives", function()
      store(60)
      sandbox:faults(always(fault))
      local result = call({ timeout = case.timeout })
      assert.are.equal(stored.access_token, result.token)
      assert.are.equal("refresh_failed", attempt.names(result.events))
      assert.are.equal(code, result.events[1].code)
      assert.is_true(holds(result.events[1].message, words), result.events[1].message)
      assert_still_stored()
      assert.is_true(tokens.works(sandbox, result.token))
      assert_recovers()
    end)
  end
end)

-- The server has carried the refresh out, and the client will never know what
-- came of it: the old pair is dead, the new one unknown.
local losses = {
  ["hangs"] = { { kind = "hang", when = "after" }, timeout = helper.SHORT },
  ["closes the connection"] = { { kind = "close", when = "after" } },
  ["resets the connection"] = { { kind = "close", when = "after", reset = true } },
  ["ends without a byte"] = { { kind = "half", bytes = 0 } },
  ["ends within its headers"] = { { kind = "half", bytes = 60 } },
  ["ends within its body"] = { { kind = "half" } },
  ["answers without end"] = { { kind = "flood" }, said = "far too long" },
  ["answers with a page"] = { text(200, "<html></html>"), said = "holds no token" },
  ["answers with nothing"] = { text(200, ""), said = "holds no token" },
  ["answers {}"] = { text(200, "{}"), said = "holds no token" },
  ["answers null"] = { text(200, "null"), said = "holds no token" },
  ["answers []"] = { text(200, "[]"), said = "holds no token" },
  ["answers with half an object"] = { text(200, TRUNCATED), said = "holds no token" },
  ["answers 500"] = { json(500, { error = "server_error" }), said = "HTTP 500" },
  ["answers 502"] = { text(502, "<html>Bad Gateway</html>"), said = "HTTP 502" },
  ["answers 504"] = { text(504, ""), said = "HTTP 504" },
}

local function after(fault)
  return helper.merge({ when = "after" }, fault)
end

describe("a server that has rotated and then", function()
  for name, case in helper.sorted(losses) do
    it(name .. " costs a login, and no second request", function()
      store(-10)
      sandbox:faults(after(case[1]))
      local result = call({ timeout = case.timeout })
      assert_failed(result, "lost_rotation", { "LUCID_REFRESH_TOKEN" })
      assert.are.equal("lost", attempt.names(result.events))
      assert.are.equal(1, requests())
      assert.are.equal(1, sandbox:counts().rotations - asked.rotations)
      assert.are.equal(1, introspections())
      local mark = assert_still_stored(true).pending
      assert.is_true(math.abs(mark.since - os.time()) < 60)
      -- The next caller asks once more, and does not spend it either.
      local again = call()
      assert_failed(again, "lost_rotation", { "LUCID_REFRESH_TOKEN" })
      assert.are.equal(1, requests())
      assert.are.equal(0, sandbox:counts().reuses)
      assert_still_stored(true)
      -- The user logs in.
      local login = sandbox:open_grant({ account = "again" })
      local new = call({ refresh_token = login.refresh_token })
      assert.are.equal(sandbox:grant("again").access_token, new.token)
      assert.are.equal(new.token, call().token)
      assert.are.equal(2, requests())
    end)

    it(name .. " takes the token that it killed out of use", function()
      store(60)
      sandbox:faults(after(case[1]))
      local result = call({ timeout = case.timeout })
      assert.is_nil(result.token)
      assert.are.equal("lost_rotation", result.code)
      assert.are.equal(1, requests())
      assert_still_stored(true)
    end)
  end

  for name, case in helper.sorted(losses) do
    if case.said then
      it(name .. " is quoted with the loss", function()
        store(-10)
        sandbox:faults(after(case[1]))
        assert_failed(call(), "lost_rotation", { case.said })
      end)
    end
  end

  it("closes the connection too early has lost nothing when all of the tokens came", function()
    store(-10)
    sandbox:faults({ kind = "transform", headers = { ["Content-Length"] = 5000 } })
    local result = call()
    assert.are.equal(sandbox:grant().access_token, result.token, result.message)
    assert.are.equal(sandbox:grant().refresh_token, tokens.read(fixture.path).refresh_token)
    assert.are.equal(result.token, call().token)
    assert.are.equal(1, requests())
  end)

  it("answers nonsense has it kept, for whoever looks into the matter", function()
    store(-10)
    sandbox:faults(after(text(200, TRUNCATED)))
    call()
    assert.are.equal(TRUNCATED, tokens.read(fixture.path).pending.answer)
  end)
end)

describe("an introspection endpoint that", function()
  local odd = {
    ["answers 500"] = { json(500, {}), "server_error" },
    ["answers 429"] = { text(429, "", { ["Retry-After"] = "1" }), "rate_limited" },
    ["answers with a page"] = { text(200, "<html></html>"), "bad_response" },
    ["answers without a word of it"] = { json(200, { token_type = "bearer" }), "bad_response" },
    ["redirects"] = { text(302, "", { Location = "https://other.example/" }), "bad_response" },
    ["closes the connection"] = { { kind = "close" }, "network" },
    ["hangs"] = { { kind = "hang" }, "timeout", timeout = helper.SHORT },
  }

  for name, case in helper.sorted(odd) do
    it(name .. " leaves the matter open, and nothing is sent meanwhile", function()
      store(-10)
      local fault = always(case[1])
      fault.endpoint = "introspect"
      sandbox:faults({ text(500, ""), fault })
      local result = call({ timeout = case.timeout or helper.SHORT })
      assert_failed(result, case[2], { "introspection endpoint" })
      assert.are.equal(1, requests())
      assert_still_stored(true)
      local next_one = assert_recovers()
      assert.are.equal("refreshed recovered", attempt.names(next_one.events))
    end)
  end

  for _, status in ipairs({ 401, 403, 404, 405 }) do
    it("refuses with " .. status .. " is as good as none, and the message says so", function()
      store(-10)
      local fault = always(text(status, ""))
      fault.endpoint = "introspect"
      sandbox:faults({ text(500, ""), fault })
      local result = call({ timeout = 0.5 })
      assert.are.equal("server_error", result.code)
      assert.is_true(holds(result.message, { "introspection_url = false" }), result.message)
      assert.are.equal(1, requests())
      assert_still_stored(true)
    end)
  end

  it("the provider does not have leaves one more request, later", function()
    store(-10)
    sandbox:faults(text(500, ""))
    local result = call({ introspection_url = false, timeout = helper.SHORT })
    assert.are.equal("server_error", result.code)
    assert.is_true(holds(result.message, { "may have been spent", "HTTP 500" }), result.message)
    assert.are.equal(1, requests())
    assert_still_stored(true)
    local token = call({ introspection_url = false }).token
    assert.is_true(tokens.works(sandbox, (assert(token))))
    assert.are.equal(2, requests())
    assert.are.equal(0, introspections())
  end)
end)

describe("nobody", function()
  it("at the other end is no loss", function()
    store(-10)
    local url, taken = helper.dead_url()
    local result = call({ api_url = url, timeout = helper.SHORT })
    assert_failed(result, "network", { "could not be reached" })
    assert_still_stored()
    taken:close()
    assert_recovers()
  end)

  it("at the other end does not stop a token that still lives", function()
    store(60)
    local url, taken = helper.dead_url()
    local result = call({ api_url = url })
    assert.are.equal(stored.access_token, result.token)
    assert.are.equal("refresh_failed", attempt.names(result.events))
    assert_still_stored()
    taken:close()
    assert_recovers()
  end)

  -- Their proxies would answer for what is not there.
  local function run_without_proxy(url)
    local env = fixture:env({ LUCID_API_URL = url, LUCID_REFRESH_TOKEN = false })
    for _, name in ipairs({ "http_proxy", "https_proxy", "all_proxy" }) do
      env[name], env[name:upper()] = false, false
    end
    return attempt.run(env, nil, [[
      local token, message, code = require("lucidauth").new({ timeout = 2 }):token()
      print(token or code)
      print(message)
    ]])
  end

  it("has the host's name", function()
    store(-10)
    local code, message = run_without_proxy("https://lucidauth.invalid")
    assert.is_true(code == "network" or code == "timeout", code)
    assert.is_true(holds(message, { "could not be reached", ADVICE.network }), message)
    assert.is_true(says_what_is_safe(message), message)
    assert.are.equal(0, requests())
    assert_still_stored()
    assert_recovers()
  end)

  it("speaks TLS there", function()
    store(-10)
    local code, message = run_without_proxy((sandbox.url:gsub("^http:", "https:")))
    assert.are.equal("network", code)
    assert.is_true(holds(message, { "could not be reached", ADVICE.network }), message)
    assert.is_true(says_what_is_safe(message), message)
    assert.are.equal(0, requests())
    assert_still_stored()
    assert_recovers()
  end)
end)

describe("a server that asks to wait", function()
  local function waits(fault)
    store(-10)
    fault.times = 1
    sandbox:faults(fault)
    local result = call()
    assert.is_true(tokens.works(sandbox, (assert(result.token, result.message))))
    assert.are.equal(2, requests())
    assert.are.equal(0, introspections())
    local times = {}
    for _, entry in ipairs(sandbox:log().entries) do
      times[#times + 1] = entry.endpoint == "token" and entry.time or nil
    end
    return times[#times] - times[#times - 1]
  end

  it("a second gets it", function()
    assert.is_true(waits(text(429, "", { ["Retry-After"] = "1" })) >= 1)
    sandbox:reset()
    assert.is_true(waits(text(503, "", { ["Retry-After"] = "1" })) >= 1)
  end)

  it("no more, by zero or by a date that has passed, is asked again", function()
    waits(text(429, "", { ["Retry-After"] = "0" }))
    sandbox:reset()
    waits(text(503, "", { ["Retry-After"] = "Wed, 21 Oct 2015 07:28:00 GMT" }))
  end)

  it("longer than the caller can is not waited for", function()
    store(-10)
    sandbox:faults(always(text(429, "", { ["Retry-After"] = "600" })))
    local client = fixture:client()
    local _, message, code = client:token()
    assert.are.equal("rate_limited", code, message)
    assert.are.equal(1, requests())
    local status = client:status()
    assert.is_true(status.retry_in > 300 and status.retry_in <= 600)
  end)
end)

describe("another program's new tokens", function()
  -- A server of this process: it takes one request and answers what `answer`
  -- returns, a status and a body; nil: it hangs up.
  local function serve(listener, answer)
    local line = assert(listener:accept())
    line:settimeout(60)
    local length = 0
    repeat
      local head = assert(line:receive("*l"))
      length = tonumber(head:match("^[Cc]ontent%-[Ll]ength: *(%d+)")) or length
    until head == ""
    assert(line:receive(length))
    local status, body = answer()
    if status then
      line:send(("HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
        .. "Content-Length: %d\r\nConnection: close\r\n\r\n%s"):format(status, #body, body))
    end
    line:close()
  end

  local function start_call()
    local listener = assert(socket.bind("127.0.0.1", 0))
    listener:settimeout(60)
    local _, port = listener:getsockname()
    local child = helper.start({ helper.interpreter, "-e", [[
      local lucid = require("lucidauth")
      local names = {}
      lucid.configure({ on_event = function(event) names[#names + 1] = event.name end })
      print(lucid.token())
      print(table.concat(names, " "))
    ]] }, fixture:env({
      LUCID_API_URL = "http://127.0.0.1:" .. port, LUCID_REFRESH_TOKEN = false,
    }))
    return child, listener
  end

  -- They are written, as the example script would, which knows no lock, while the
  -- server makes up its mind about the first request.
  local function check_adopted(...)
    store(-10)
    local child, listener = start_call()
    local new
    for _, answer in ipairs({ ... }) do
      serve(listener, function()
        new = new or fixture:store(1000)
        return answer[1], answer[2]
      end)
    end
    local out = child:wait()
    listener:close()
    assert.are.equal(new.access_token, out:match("^%S+"), out)
    assert.are.equal(new.refresh_token, tokens.read(fixture.path).refresh_token)
    assert.is_nil(tokens.read(fixture.path).pending)
  end

  it("are adopted when the server refuses those that they replace", function()
    check_adopted({ "400 Bad Request", '{"error":"invalid_grant"}' })
  end)

  it("are adopted when the answer is lost and the old ones are dead", function()
    check_adopted({}, {}, { "200 OK", '{"active":false}' })
  end)

  it("are not overwritten when the server issues others", function()
    check_adopted({ "200 OK", '{"access_token":"A","refresh_token":"R","expires_in":3600}' })
  end)

  it("are not overwritten by what is noted of a failure", function()
    check_adopted({ "403 Forbidden", '{"error":"invalid_client"}' })
  end)

  it("are not overwritten by an answer that makes no sense", function()
    check_adopted({ "200 OK", "<html>Good morning</html>" })
  end)

  it("are looked for before a request is sent again", function()
    check_adopted({ "429 Too Many Requests", "{}" })
  end)
end)

-- ---- answers that are odd, and good ----

local function lifetime_of(record)
  return record.expires_at - record.obtained_at
end

local function lives(seconds)
  return function(record)
    assert.are.equal(seconds, math.floor(lifetime_of(record) + 0.001))
  end
end

local function transform(fields)
  fields.kind = "transform"
  return fields
end

local function raw(name, value)
  return transform({ raw = { [name] = value } })
end

local function with(name, value)
  return transform({ set = { [name] = value } })
end

local function without(name)
  return transform({ remove = { name } })
end

local DEFAULT = 1234

local TEN_YEARS = 10 * 365.25 * 86400

-- By the rows of a table of odd token answers: the fault, and what must be
-- true of the record that is stored then. Each gives a token that works.
local odd = {
  ["expires_in as a string"] = { raw("expires_in", '"3600"'), lives(3600) },
  ["expires_in with a point"] = { raw("expires_in", "3600.0"), lives(3600) },
  ["expires_in as a string with a fraction"] = { raw("expires_in", '"3600.5"'), lives(3600) },
  ["no expires_in"] = { without("expires_in"), lives(DEFAULT) },
  ["expires_in null"] = { raw("expires_in", "null"), lives(DEFAULT) },
  ["expires_in empty"] = { raw("expires_in", '""'), lives(DEFAULT) },
  ["expires_in true"] = { raw("expires_in", "true"), lives(DEFAULT) },
  ["expires_in an array"] = { raw("expires_in", "[3600]"), lives(DEFAULT) },
  ["expires_in an object"] = { raw("expires_in", "{}"), lives(DEFAULT) },
  ["expires_in a word"] = { raw("expires_in", '"soon"'), lives(DEFAULT) },
  ["expires_in 0"] = { raw("expires_in", "0"), function(record)
    assert.is_true(record.expires_at - os.time() > 60)
  end },
  ["expires_in negative"] = { raw("expires_in", "-5"), function(record)
    assert.is_true(record.expires_at - os.time() > 60)
  end },
  ["expires_in beyond all measure"] = { raw("expires_in", "1e20"), lives(TEN_YEARS) },
  ["expires_in beyond all numbers"] = { raw("expires_in", "1e400"), lives(TEN_YEARS) },
  ["expires_in shorter than the margin"] = { raw("expires_in", "8"), lives(8) },
  ["JSON as text/plain"] = { transform({ headers = { ["Content-Type"] = "text/plain" } }) },
  ["JSON as text/html"] = { transform({ headers = HTML }) },
  ["no Content-Type at all"] = { transform({ headers = { ["X-None"] = "1" } }) },
  ["a form"] = { transform({ encoding = "form" }), lives(3600) },
  ["a byte order mark"] = { transform({ prefix = "\239\187\191" }) },
  ["junk behind the object"] = { transform({ suffix = "\n<!-- cached -->" }) },
  ["white space around the object"] = { transform({ prefix = "\r\n\t ", suffix = "\n\n" }) },
  ["bytes that are not UTF-8 in the scope"] = { raw("scope", '"caf\233"'), function(record)
    assert.are.equal("caf\239\191\189", record.scope)
  end },
  ["no token_type"] = { without("token_type") },
  ["token_type null"] = { raw("token_type", "null") },
  ["token_type Bearer"] = { with("token_type", "Bearer") },
  ["token_type BEARER"] = { with("token_type", "BEARER") },
  ["scope as an array"] = { raw("scope", '["a","b"]'), function(record)
    assert.are.same({ "a", "b" }, record.scope)
  end },
  ["scopes"] = { transform({ remove = { "scope" }, set = { scopes = "a b" } }), function(record)
    assert.are.equal("a b", record.scopes)
  end },
  ["fields that nobody knows"] = {
    raw("extra", '{"deep":[1,{"er":null}],"big":12345678901234567890}'),
    function(record, text_of_it)
      assert.are.equal(1, record.extra.deep[1])
      assert.is_true(holds(text_of_it, { '"extra":{"deep":[1,{"er":null}],'
        .. '"big":12345678901234567890}' }), text_of_it)
    end,
  },
  ["status 201"] = { transform({ status = 201 }) },
}

describe("an odd answer that is good:", function()
  for name, case in helper.sorted(odd) do
    it(name, function()
      store(-10)
      sandbox:faults(case[1])
      local result = call({ default_lifetime = DEFAULT })
      local grant = sandbox:grant()
      assert.are.equal(grant.access_token, result.token, result.message)
      assert.are.equal("refreshed", attempt.names(result.events))
      local record = tokens.read(fixture.path)
      assert.are.equal(grant.access_token, record.access_token)
      assert.are.equal(grant.refresh_token, record.refresh_token)
      assert.are.same(stored.note, record.note)
      assert.is_nil(record.pending)
      if case[2] then
        case[2](record, helper.read_file(fixture.path))
      end
      -- No storm: the next ones have it from the file.
      for _ = 1, 3 do
        assert.are.equal(result.token, call().token)
      end
      assert.are.equal(1, requests())
      assert.are.equal(0, introspections())
    end)
  end

  it("keys that come twice: the last ones count", function()
    store(-10)
    sandbox:faults(after(text(200, '{"access_token":"first","refresh_token":"r1",'
      .. '"access_token":"last","expires_in":60,"expires_in":600,"refresh_token":"r2"}')))
    assert.are.equal("last", call().token)
    local record = tokens.read(fixture.path)
    assert.are.equal("last", record.access_token)
    assert.are.equal("r2", record.refresh_token)
    assert.are.equal(600, math.floor(lifetime_of(record) + 0.001))
  end)

  for name, fault in helper.sorted({
    ["no refresh_token"] = without("refresh_token"),
    ["refresh_token null"] = raw("refresh_token", "null"),
    ["refresh_token empty"] = raw("refresh_token", '""'),
    ["refresh_token a number"] = raw("refresh_token", "12345"),
    ["the same refresh_token again"] = transform({}),
    ["a refresh_token with a line break"] = raw("refresh_token", '"a\\r\\nb"'),
    ["a refresh_token with a NUL"] = raw("refresh_token", '"a\\u0000b"'),
  }) do
    it(name .. ": the old one is kept, and goes on working", function()
      sandbox:settings({ rotate = false })
      store(-10)
      sandbox:faults(fault)
      local result = call()
      assert.are.equal(sandbox:grant().access_token, result.token)
      local record = tokens.read(fixture.path)
      assert.are.equal(stored.refresh_token, record.refresh_token)
      record.expires_at = os.time() - 1
      tokens.write(fixture.path, record)
      assert.is_true(tokens.works(sandbox, (assert(call().token))))
      assert.are.equal(2, requests())
    end)
  end
end)

describe("an answer without a token to use:", function()
  for name, fault in helper.sorted({
    ["no access_token"] = without("access_token"),
    ["access_token empty"] = raw("access_token", '""'),
    ["access_token null"] = raw("access_token", "null"),
    ["access_token a number"] = raw("access_token", "12345"),
    ["an access_token with a line break"] = raw("access_token", '"a\\r\\nX-Evil: 1"'),
    ["an access_token with a NUL"] = raw("access_token", '"a\\u0000b"'),
    ["an access_token with a control byte"] = raw("access_token", '"a\\u001fb"'),
  }) do
    it(name .. ": the new refresh token is kept, and brings another", function()
      store(-10)
      sandbox:faults(fault)
      local result = call()
      assert_failed(result, "bad_response", { "without a usable access token" })
      assert.are.equal("refreshed refresh_failed", attempt.names(result.events))
      local record = tokens.read(fixture.path)
      assert.are.equal(sandbox:grant().refresh_token, record.refresh_token)
      assert.is_nil(record.access_token)
      assert.is_nil(record.pending)
      assert.are.same(stored.note, record.note)
      assert.are.equal(1, requests())
      assert_recovers()
    end)
  end

  it("a token that is not Bearer: the pair is kept, and refresh() asks for another", function()
    store(-10)
    sandbox:faults(with("token_type", "mac"))
    local result = call()
    assert_failed(result, "bad_response", { '"mac"' })
    local grant, record = sandbox:grant(), tokens.read(fixture.path)
    assert.are.equal(grant.access_token, record.access_token)
    assert.are.equal(grant.refresh_token, record.refresh_token)
    assert.are.equal(1, requests())
    -- No storm: what it would bring is known.
    local again = call()
    assert.are.equal("bad_response", again.code)
    assert.is_true(holds(again.message, { "Bearer", "refresh()" }), again.message)
    assert.are.equal(1, requests())
    assert.is_true(tokens.works(sandbox, (assert(fixture:client():refresh()))))
    assert.are.equal(2, requests())
  end)
end)
