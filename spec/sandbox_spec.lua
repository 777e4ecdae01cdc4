local socket = require("socket")

local helper = require("spec.helper")
local codec = require("lucidauth.sandbox.codec")
local grants = require("lucidauth.sandbox.grants")
local sandbox = require("lucidauth.sandbox")
local settings = require("lucidauth.sandbox.settings")

local contains = helper.contains

describe("the grants", function()
  local now, values, store

  before_each(function()
    now, values = 1000, settings.defaults()
    local serial = 0
    store = grants.new({
      clock = function()
        return now
      end,
      random = function()
        serial = serial + 1
        return tostring(serial)
      end,
      settings = values,
    })
  end)

  it("rotate: a refresh kills both old tokens at once", function()
    local grant = store:open({ refresh_token = "first" })
    local one = assert(store:refresh("first"))
    local two = assert(store:refresh(one.refresh_token))
    assert.is_nil(store:bearer(one.access_token))
    assert.are.equal(grant, store:bearer(two.access_token))
    assert.is_false(store:introspect(one.refresh_token).active)
    assert.is_true(store:introspect(two.refresh_token).active)
    assert.are.equal(2, grant.rotations)
  end)

  it("answer with every field that Lucid sends", function()
    store:open({ refresh_token = "first" })
    local answer = assert(store:refresh("first"))
    assert.are.equal("sandbox-client", answer.client_id)
    assert.are.equal(3600, answer.expires_in)
    assert.are.equal((1000 + 3600) * 1000, answer.expires)
    assert.are.equal(grants.DEFAULT_SCOPE, answer.scope)
    assert.are.equal("bearer", answer.token_type)
    assert.are.equal("number", type(answer.user_id))
    assert.are.equal("string", type(answer.access_token))
    assert.are.equal("string", type(answer.refresh_token))
  end)

  it("end when a spent refresh token comes again", function()
    store:open({ refresh_token = "first" })
    local one = assert(store:refresh("first"))
    local answer, refusal = store:refresh("first")
    assert.is_nil(answer)
    assert.are.equal("reuse", refusal.outcome)
    assert.are.equal("invalid_grant", refusal.error)
    assert.is_nil(store:bearer(one.access_token))
    local _, second = store:refresh(one.refresh_token)
    assert.are.equal("revoked", second.outcome)
  end)

  it("survive reuse when it is not punished", function()
    values.punish_reuse = false
    store:open({ refresh_token = "first" })
    local one = assert(store:refresh("first"))
    local _, refusal = store:refresh("first")
    assert.are.equal("reuse", refusal.outcome)
    assert.is_truthy(store:bearer(one.access_token))
    assert.is_truthy(store:refresh(one.refresh_token))
  end)

  it("keep their refresh token when they do not rotate", function()
    values.rotate = false
    store:open({ refresh_token = "first" })
    local one = assert(store:refresh("first"))
    local two = assert(store:refresh("first"))
    assert.are.equal("first", one.refresh_token)
    assert.are.equal("first", two.refresh_token)
    assert.is_truthy(store:bearer(one.access_token))
    assert.is_truthy(store:bearer(two.access_token))
  end)

  it("let access tokens die by the clock, to the fraction", function()
    values.lifetime = 0.5
    store:open({ refresh_token = "first" })
    local answer = assert(store:refresh("first"))
    assert.are.equal(0.5, answer.expires_in)
    now = 1000.49
    assert.is_truthy(store:bearer(answer.access_token))
    now = 1000.5
    assert.is_nil(store:bearer(answer.access_token))
  end)

  it("let refresh tokens die after 180 days", function()
    store:open({ refresh_token = "first" })
    now = 1000 + 180 * 86400
    local _, refusal = store:refresh("first")
    assert.are.equal("expired", refusal.outcome)
  end)

  it("have a refresh token only with the scope offline_access", function()
    local function login(scope)
      local code = store:authorize({
        kind = "user",
        scope = scope,
        redirect_uri = "http://localhost/",
      })
      return assert(store:exchange({
        code = code,
        redirect_uri = "http://localhost/",
      }))
    end
    assert.is_nil(login("user.profile").refresh_token)
    assert.is_nil(login("xoffline_access").refresh_token)
    assert.is_truthy(login("offline_access user.profile").refresh_token)
  end)

  describe("given a code", function()
    local URI = "http://localhost/callback"
    -- The pair of RFC 7636, appendix B.
    local VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    local CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    local function authorize(challenge, method)
      return store:authorize({
        kind = "user",
        scope = "offline_access",
        redirect_uri = URI,
        challenge = challenge,
        method = method,
      })
    end

    local function exchange(code, verifier, uri)
      local answer, refusal = store:exchange({
        code = code,
        redirect_uri = uri or URI,
        code_verifier = verifier,
      })
      return answer, refusal and refusal.outcome
    end

    it("exchange it once; the second time ends the grant", function()
      local code = authorize()
      local answer = assert(exchange(code))
      assert.are.same({ nil, "code_reuse" }, { exchange(code) })
      assert.is_nil(store:bearer(answer.access_token))
    end)

    it("forget it after five minutes", function()
      local early, late = authorize(), authorize()
      now = 1000 + 299
      assert.is_truthy(exchange(early))
      now = 1000 + 300
      assert.are.same({ nil, "expired" }, { exchange(late) })
    end)

    it("want the very same redirect_uri", function()
      local code = authorize()
      local answer, outcome = exchange(code, nil, URI .. "/")
      assert.are.same({ nil, "mismatch" }, { answer, outcome })
    end)

    it("check PKCE's S256 with nothing more than lucidauth brings", function()
      local out, err, status = helper.run_lua(([[
        package.preload["openssl.digest"] = function() error("there is no luaossl") end
        local codec = require("lucidauth.sandbox.codec")
        print(codec.s256(%q), codec.s256(""))
      ]]):format(VERIFIER))
      assert.are.equal("", err)
      assert.are.equal(0, status)
      assert.are.equal(CHALLENGE .. "\t47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU\n", out)
    end)

    it("check PKCE's S256", function()
      local wrong = ("x"):rep(43)
      assert.is_truthy(exchange(authorize(CHALLENGE, "S256"), VERIFIER))
      assert.is_nil((exchange(authorize(CHALLENGE, "S256"), wrong)))
      assert.is_nil((exchange(authorize(CHALLENGE, "S256"), CHALLENGE)))
      assert.is_nil((exchange(authorize(CHALLENGE, "S256"), nil)))
    end)

    it("check PKCE's plain method", function()
      assert.is_truthy(exchange(authorize(VERIFIER, "plain"), VERIFIER))
      assert.is_nil((exchange(authorize(VERIFIER, "plain"), CHALLENGE)))
    end)

    it("refuse a verifier that no challenge was sent for", function()
      assert.is_nil((exchange(authorize(), VERIFIER)))
    end)
  end)

  it("end wholly when either token is revoked", function()
    for _, kind in ipairs({ "access_token", "refresh_token" }) do
      store:open({ refresh_token = kind })
      local answer = assert(store:refresh(kind))
      assert.is_true(store:revoke(answer[kind]))
      assert.is_nil(store:bearer(answer.access_token))
      assert.is_false(store:introspect(answer.refresh_token).active)
    end
  end)

  it("are not ended by a token that is dead already", function()
    store:open({ refresh_token = "first" })
    local answer = assert(store:refresh("first"))
    assert.is_false(store:revoke("first"))
    assert.is_false(store:revoke("never issued"))
    assert.is_truthy(store:bearer(answer.access_token))
  end)

  it("tell by introspection how long a token lives", function()
    store:open({ refresh_token = "first" })
    local answer = assert(store:refresh("first"))
    now = 1100
    local access = store:introspect(answer.access_token)
    assert.are.equal(3500, access.expires_in)
    assert.are.equal(4600000, access.expires)
    assert.are.equal(grants.DEFAULT_SCOPE, access.scope)
    local refresh = store:introspect(answer.refresh_token)
    assert.are.equal(180 * 86400 - 100, refresh.expires_in)
  end)

  it("are named by marks that tell nothing of the token", function()
    local grant = store:open({ refresh_token = "first" })
    local answer = assert(store:refresh("first"))
    assert.are.same({ "R1", grant }, { store:identify("first") })
    assert.are.same({ "A1", grant }, { store:identify(answer.access_token) })
    assert.are.equal("unknown", (store:identify("never issued")))
  end)
end)

describe("the sandbox", function()
  local box

  setup(function()
    box = helper.start_sandbox({ accounts = { "alpha", "beta" } })
  end)

  teardown(function()
    box:stop()
  end)

  before_each(function()
    box:reset()
  end)

  local function refresh_body(token, changes)
    local body = {
      client_id = box.client_id,
      client_secret = box.client_secret,
      grant_type = "refresh_token",
      refresh_token = token or box.refresh_token,
    }
    for name, value in pairs(changes or {}) do
      body[name] = value
    end
    return body
  end

  local function refresh(token, changes)
    return helper.http_json("POST", box.url .. "/oauth2/token",
      refresh_body(token, changes))
  end

  local function client_fields(fields)
    fields.client_id = box.client_id
    fields.client_secret = box.client_secret
    return fields
  end

  local function introspect(token)
    return helper.http_form(box.url .. "/oauth2/token/introspect",
      client_fields({ token = token }))
  end

  local function profile(token, headers)
    headers = headers or { ["Lucid-Api-Version"] = "1" }
    headers.Authorization = "Bearer " .. token
    return helper.http_json("GET", box.url .. "/users/me/profile", nil, headers)
  end

  local function connect()
    local client = assert(socket.connect("127.0.0.1", box.url:match(":(%d+)$")))
    client:settimeout(10)
    return client
  end

  -- A token request as it goes over the wire.
  local function token_request(token, head)
    local body = codec.encode_json(refresh_body(token))
    return "POST /oauth2/token HTTP/1.1\r\nHost: sandbox\r\n"
      .. "Content-Type: application/json\r\n"
      .. (head or "")
      .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
  end

  -- One answer from a connection that may stay open.
  local function read_answer(client)
    local status_line = client:receive("*l")
    if not status_line then
      return nil
    end
    local length = 0
    for line in function() return client:receive("*l") end do
      if line == "" then
        break
      end
      length = tonumber(line:match("^Content%-Length: (%d+)$")) or length
    end
    local body = length > 0 and client:receive(length) or ""
    return tonumber(status_line:match("^HTTP/1%.1 (%d+)")),
      codec.decode_json(body)
  end

  -- All that comes until the connection ends.
  local function send_raw(bytes)
    local client = connect()
    client:send(bytes)
    local text, reason, part = client:receive("*a")
    client:close()
    return text or part, reason
  end

  describe("at the token endpoint", function()
    it("refreshes from a JSON body", function()
      local status, answer, headers = refresh()
      assert.are.equal(200, status)
      assert.are.equal("no-store", headers["cache-control"])
      assert.are.equal(box.client_id, answer.client_id)
      assert.are.equal(3600, answer.expires_in)
      assert.is_true(math.abs(answer.expires / 1000 - 3600 - os.time()) < 60)
      local grant = box:grant()
      assert.are.equal(grant.access_token, answer.access_token)
      assert.are.equal(grant.refresh_token, answer.refresh_token)
      assert.are_not.equal(box.refresh_token, answer.refresh_token)
    end)

    it("refreshes from a form", function()
      local status, answer =
        helper.http_form(box.url .. "/oauth2/token", refresh_body())
      assert.are.equal(200, status)
      assert.are.equal(box:grant().access_token, answer.access_token)
    end)

    it("takes the client from HTTP Basic, percent-encoded", function()
      box:settings({ client_id = "a b:c", client_secret = "s%cret" })
      local credentials = require("mime").b64("a+b%3Ac:s%25cret")
      local fields = {
        grant_type = "refresh_token",
        refresh_token = box.refresh_token,
      }
      local headers = { Authorization = "Basic " .. credentials }
      local url = box.url .. "/oauth2/token"
      assert.are.equal(200, (helper.http_form(url, fields, headers)))
      fields.client_secret = "s%cret"
      local status, answer = helper.http_form(url, fields, headers)
      assert.are.equal(400, status)
      assert.are.equal("invalid_request", answer.error)
    end)

    it("turns a wrong client away with 403, and spends nothing", function()
      local status, answer = refresh(nil, { client_secret = "wrong" })
      assert.are.equal(403, status)
      assert.are.equal("invalid_client", answer.error)
      assert.are.equal(403, (refresh(nil, { client_id = "wrong" })))
      assert.is_true(box:grant().refresh_live)
      local counts = box:counts()
      assert.are.equal(2, counts.invalid_clients)
      assert.are.equal(0, counts.refreshes)
      assert.are.equal(2, counts.refusals)
    end)

    it("says invalid_grant to a spent token and ends its grant", function()
      local _, pair = refresh()
      local status, answer = refresh()
      assert.are.equal(400, status)
      assert.are.equal("invalid_grant", answer.error)
      assert.are.equal(401, (profile(pair.access_token)))
      assert.are.equal("reuse", box:grant().ended)
      local counts = box:counts()
      assert.are.equal(2, counts.refreshes)
      assert.are.equal(1, counts.rotations)
      assert.are.equal(1, counts.reuses)
      assert.is_true(box:grant("alpha").refresh_live)
    end)

    it("can leave reuse unpunished", function()
      box:settings({ punish_reuse = false })
      local _, pair = refresh()
      assert.are.equal(400, (refresh()))
      assert.are.equal(200, (profile(pair.access_token)))
      assert.are.equal(1, box:counts().reuses)
    end)

    it("keeps the accounts apart", function()
      assert.are.equal(200, (refresh(box:grant("alpha").refresh_token)))
      assert.are.equal(1, box:grant("alpha").rotations)
      assert.are.equal(0, box:grant("beta").rotations)
      assert.are.equal(0, box:grant().rotations)
    end)

    it("refuses what it cannot understand", function()
      local url = box.url .. "/oauth2/token"
      local json = { ["Content-Type"] = "application/json" }
      local form = { ["Content-Type"] = "application/x-www-form-urlencoded" }
      local function refusal(body, headers)
        local status, answer = helper.http_json("POST", url, body, headers)
        return { status, answer.error }
      end
      local bad_request = { 400, "invalid_request" }
      assert.are.same(bad_request, refusal("{", json))
      assert.are.same(bad_request, refusal("[1]", json))
      assert.are.same(bad_request, refusal("null", json))
      assert.are.same(bad_request, refusal('{"client_id":1}', json))
      assert.are.same(bad_request, refusal("a=1&a=2", form))
      assert.are.same(bad_request, refusal("{}", { ["Content-Type"] = "x/y" }))
      assert.are.same(bad_request, refusal("{}", {}))
      assert.are.same(bad_request,
        refusal(client_fields({ grant_type = "refresh_token" })))
      assert.are.same(bad_request, refusal(client_fields({})))
      assert.are.same({ 400, "unsupported_grant_type" },
        refusal(client_fields({ grant_type = "password" })))
      assert.are.equal(405, (helper.http_json("GET", url)))
      assert.is_true(box:grant().refresh_live)
    end)

    it("rotates before its latency: who gives up has lost", function()
      box:settings({ latency = 60 })
      local client = connect()
      client:send(token_request())
      repeat
        local rotations = box:grant().rotations
      until rotations == 1
      client:settimeout(0)
      assert.are.equal("timeout", select(2, client:receive(1)))
      client:close()
      box:settings({ latency = 0 })
      assert.are.equal(400, (refresh()))
    end)

    it("can rotate after its latency", function()
      box:settings({ latency = 0.2, rotate_after_latency = true })
      local client = connect()
      local started = socket.gettime()
      client:send(token_request())
      repeat
        local counts = box:counts()
      until counts.token_requests == 1
      -- The count shows that the request is in; a rotation takes a while yet.
      local rotations = box:grant().rotations
      local is_waiting = socket.gettime() - started < 0.2
      assert.is_true(rotations == 0 or not is_waiting)
      assert.are.equal(200, (read_answer(client)))
      assert.is_true(socket.gettime() - started >= 0.2)
      assert.are.equal(1, box:grant().rotations)
    end)

    it("notices requests that overlap", function()
      box:faults({ kind = "hang" })
      local client = connect()
      client:send(token_request())
      repeat
        local counts = box:counts()
      until counts.token_requests == 1
      assert.are.equal(200, (refresh()))
      assert.are.equal(1, box:counts().overlaps)
      client:close()
      assert.are.equal(200, (refresh(box:grant().refresh_token)))
      assert.are.equal(1, box:counts().overlaps)
    end)
  end)

  describe("at introspection and revocation", function()
    it("tells live tokens from dead ones", function()
      local _, pair = refresh()
      local status, answer = introspect(pair.access_token)
      assert.are.equal(200, status)
      assert.is_true(answer.active)
      assert.is_true(answer.expires_in > 3590 and answer.expires_in <= 3600)
      assert.are.equal(pair.user_id, answer.user_id)
      assert.are.equal(pair.scope, answer.scope)
      assert.are.equal(pair.expires, answer.expires)
      assert.is_true(select(2, introspect(pair.refresh_token)).active)
      assert.are.same({ active = false },
        (select(2, introspect(box.refresh_token))))
      assert.are.same({ active = false }, (select(2, introspect("unknown"))))
      assert.are.equal(4, box:counts().introspections)
    end)

    it("takes JSON too, and wants the client", function()
      local url = box.url .. "/oauth2/token/introspect"
      local _, answer = helper.http_json("POST", url,
        client_fields({ token = box.refresh_token }))
      assert.is_true(answer.active)
      assert.are.equal(403,
        (helper.http_form(url, { token = box.refresh_token })))
      assert.are.equal(400, (helper.http_form(url, client_fields({}))))
    end)

    it("can do without introspection", function()
      box:settings({ introspection = false })
      assert.are.equal(404, (introspect(box.refresh_token)))
      local _, metadata = helper.http_json("GET",
        box.url .. "/.well-known/oauth-authorization-server")
      assert.is_nil(metadata.introspection_endpoint)
    end)

    it("revokes the whole grant by either token", function()
      local url = box.url .. "/oauth2/token/revoke"
      for account, kind in pairs({
        alpha = "access_token",
        beta = "refresh_token",
      }) do
        local _, pair = refresh(box:grant(account).refresh_token)
        assert.are.equal(200,
          (helper.http_form(url, client_fields({ token = pair[kind] }))))
        assert.are.equal("revoked", box:grant(account).ended)
        assert.are.equal(401, (profile(pair.access_token)))
      end
      local status, answer =
        helper.http_json("POST", url, client_fields({ token = "unknown" }))
      assert.are.equal(200, status)
      assert.are.same({}, answer)
      assert.are.equal(403, (helper.http_form(url, { token = "unknown" })))
    end)
  end)

  describe("at the API", function()
    it("serves the profile to a live token", function()
      local _, pair = refresh()
      local status, answer = profile(pair.access_token)
      assert.are.equal(200, status)
      assert.are.equal(pair.user_id, answer.id)
    end)

    it("wants the version in a header or in the path", function()
      local _, pair = refresh()
      local status, answer = profile(pair.access_token, {})
      assert.are.equal(400, status)
      assert.is_truthy(answer.code and answer.message and answer.requestId)
      assert.are.equal(400,
        (profile(pair.access_token, { ["Lucid-Api-Version"] = "2" })))
      assert.are.equal(200,
        (helper.http_json("GET", box.url .. "/v1/users/me/profile", nil,
          { Authorization = "bearer " .. pair.access_token })))
    end)

    it("says 401 to a dead, a missing and a wrong token", function()
      local _, pair = refresh()
      assert.are.equal(1, box:expire())
      local status, answer, headers = profile(pair.access_token)
      assert.are.equal(401, status)
      assert.is_truthy(answer.code and answer.message and answer.requestId)
      assert.is_true(contains(headers["www-authenticate"], "invalid_token"))
      assert.are.equal(401, (profile("unknown")))
      assert.are.equal(401, (profile(pair.refresh_token)))
      assert.are.equal(401,
        (helper.http_json("GET", box.url .. "/users/me/profile")))
      local counts = box:counts()
      assert.are.equal(4, counts.api_401)
      assert.are.equal(4, counts.api_requests)
    end)

    it("says 404 to other paths and 403 without the scope", function()
      local _, pair = refresh()
      local headers = { Authorization = "Bearer " .. pair.access_token }
      assert.are.equal(404, (helper.http_json("GET",
        box.url .. "/v1/documents?product=x", nil, headers)))
      assert.are.equal("product=x", box:log(1).entries[1].query)
      local other = box:open_grant({ account = "c", scope = "offline_access" })
      local _, second = refresh(other.refresh_token)
      assert.are.equal(403, (profile(second.access_token)))
    end)
  end)

  describe("at the login page", function()
    local URI = "http://127.0.0.1:9/callback?a=b"
    local VERIFIER = ("v"):rep(43)

    local function request(changes)
      local fields = {
        client_id = box.client_id,
        redirect_uri = URI,
        scope = "offline_access user.profile",
        state = "a&b",
      }
      for name, value in pairs(changes or {}) do
        fields[name] = value or nil
      end
      return fields
    end

    local function get(fields, path)
      return helper.http_json("GET",
        box.url .. (path or "/oauth2/authorize") .. "?"
          .. codec.encode_form(fields))
    end

    local function post(fields, decision, path)
      fields.decision = decision
      local status, _, headers =
        helper.http_form(box.url .. (path or "/oauth2/authorize"), fields)
      return status, headers.location
    end

    local function result_of(location)
      assert.are.equal(URI, location:sub(1, #URI))
      return assert(codec.decode_form(location:sub(#URI + 2)))
    end

    local function exchange(fields)
      fields.grant_type = "authorization_code"
      fields.redirect_uri = fields.redirect_uri or URI
      return helper.http_json("POST", box.url .. "/oauth2/token",
        client_fields(fields))
    end

    it("asks the user", function()
      local status, page, headers = get(request({ state = '"><b>' }))
      assert.are.equal(200, status)
      assert.is_true(contains(headers["content-type"], "text/html"))
      assert.is_true(contains(page, "user.profile"))
      assert.is_true(contains(page, 'value="allow"'))
      assert.is_true(contains(page, "&quot;&gt;&lt;b&gt;"))
      assert.is_false(contains(page, '"><b>'))
    end)

    it("sends the user back with a code that is worth tokens", function()
      local status, location = post(request(), "allow")
      assert.are.equal(303, status)
      local result = result_of(location)
      assert.are.equal("a&b", result.state)
      local answered, tokens = exchange({ code = result.code })
      assert.are.equal(200, answered)
      assert.are.equal(200, (profile(tokens.access_token)))
      assert.are.equal(200, (refresh(tokens.refresh_token)))
      assert.are.equal(400, (exchange({ code = result.code })))
      local counts = box:counts()
      assert.are.equal(1, counts.authorizations)
      assert.are.equal(1, counts.exchanges)
    end)

    it("opens account grants too", function()
      local path = "/oauth2/authorizeAccount"
      assert.are.equal(200, (get(request(), path)))
      local _, location = post(request(), "allow", path)
      assert.are.equal(200, (exchange({ code = result_of(location).code })))
      local list = box:grants()
      assert.are.equal("account", list[#list].kind)
    end)

    it("tells the client that the user said no", function()
      local _, location = post(request(), "deny")
      local result = result_of(location)
      assert.are.equal("access_denied", result.error)
      assert.are.equal("a&b", result.state)
      assert.is_nil(result.code)
    end)

    it("can decide by itself", function()
      box:settings({ consent = "allow" })
      local status, _, headers = get(request({ state = false }))
      assert.are.equal(303, status)
      assert.is_truthy(result_of(headers.location).code)
      box:settings({ consent = "deny" })
      _, _, headers = get(request())
      assert.are.equal("access_denied", result_of(headers.location).error)
    end)

    it("checks PKCE over the wire", function()
      for method, challenge in pairs({
        plain = VERIFIER,
        S256 = codec.s256(VERIFIER),
      }) do
        local fields = request({
          code_challenge = challenge,
          code_challenge_method = method,
        })
        local _, location = post(fields, "allow")
        local code = result_of(location).code
        assert.are.equal(400, (exchange({ code = code })))
        _, location = post(fields, "allow")
        code = result_of(location).code
        assert.are.equal(200,
          (exchange({ code = code, code_verifier = VERIFIER })))
      end
    end)

    it("never sends anybody to an address that it does not know", function()
      local function refused(changes)
        local status, _, headers = get(request(changes))
        return status == 400 and not headers.location
      end
      assert.is_true(refused({ client_id = "wrong" }))
      assert.is_true(refused({ redirect_uri = false }))
      assert.is_true(refused({ redirect_uri = "http://example.com/" }))
      assert.is_true(refused({ redirect_uri = "http://localhost.example/" }))
      assert.is_true(refused({ redirect_uri = "http://localhost@example/" }))
      assert.is_true(refused({ redirect_uri = "http://localhost/\r\nX: y" }))
      assert.is_true(refused({ redirect_uri = "http://localhost/#x" }))
      assert.is_false(refused({ redirect_uri = "http://localhost:80/" }))
      box:settings({ redirect_uris = { "https://example.com/callback" } })
      assert.is_true(refused())
      assert.is_false(refused({
        redirect_uri = "https://example.com/callback",
      }))
    end)

    it("tells the client what is wrong with its request", function()
      local function problem(changes)
        local _, _, headers = get(request(changes))
        return result_of(headers.location).error
      end
      assert.are.equal("unsupported_response_type",
        problem({ response_type = "token" }))
      assert.are.equal("invalid_scope", problem({ scope = false }))
      assert.are.equal("invalid_scope", problem({ scope = "a\\b" }))
      assert.are.equal("invalid_request",
        problem({ code_challenge = VERIFIER, code_challenge_method = "S1" }))
      assert.are.equal("invalid_request", problem({ code_challenge = "x" }))
      assert.are.equal("invalid_request",
        problem({ code_challenge_method = "S256" }))
    end)

    it("publishes its metadata", function()
      local url = box.url .. "/.well-known/oauth-authorization-server"
      local _, answer = helper.http_json("GET", url)
      assert.are.equal(box.url, answer.issuer)
      assert.are.equal(box.url .. "/oauth2/token", answer.token_endpoint)
      assert.are.same({ "S256", "plain" },
        answer.code_challenge_methods_supported)
      box:settings({ public_url = "https://lucid.test" })
      _, answer = helper.http_json("GET", url)
      assert.are.equal("https://lucid.test/oauth2/authorize",
        answer.authorization_endpoint)
    end)
  end)

  describe("with a fault queued", function()
    it("gives any answer instead, once, and spends nothing", function()
      box:faults({
        kind = "answer",
        status = 429,
        headers = { ["Retry-After"] = 7, ["Content-Type"] = "text/html" },
        body = "<p>later</p>",
      })
      local status, body, headers = refresh()
      assert.are.same({ 429, "<p>later</p>", "7", "text/html" },
        { status, body, headers["retry-after"], headers["content-type"] })
      assert.are.equal(200, (refresh()))
      assert.are.equal(1, box:counts().faults)
    end)

    it("can give that answer after it has rotated", function()
      box:faults({ kind = "answer", status = 500, when = "after" })
      assert.are.equal(500, (refresh()))
      assert.is_false(box:grant().access_token == nil)
      assert.are.equal(400, (refresh()))
    end)

    it("sends a table as JSON", function()
      box:faults({
        kind = "answer",
        status = 200,
        body = { error = "invalid_grant" },
      })
      local status, answer = refresh()
      assert.are.equal(200, status)
      assert.are.same({ error = "invalid_grant" }, answer)
    end)

    it("strikes as often as it is told, in turn", function()
      box:settings({ rotate = false })
      box:faults({
        { kind = "pass" },
        { kind = "answer", status = 503, times = 2 },
        { kind = "answer", status = 502, times = "always" },
      })
      local seen = {}
      for i = 1, 5 do
        seen[i] = refresh()
      end
      assert.are.same({ 200, 503, 503, 502, 502 }, seen)
      assert.are.equal(1, #box:faults())
      box:clear_faults()
      assert.are.equal(200, (refresh()))
    end)

    it("strikes at other endpoints, and only there", function()
      box:faults({
        { endpoint = "introspect", kind = "answer", status = 500 },
        { endpoint = "revoke", kind = "answer", status = 501 },
        { endpoint = "api", kind = "answer", status = 429 },
      })
      local _, pair = refresh()
      assert.are.equal(500, (introspect(pair.access_token)))
      assert.are.equal(429, (profile(pair.access_token)))
      assert.are.equal(501, (helper.http_form(box.url .. "/oauth2/token/revoke",
        client_fields({ token = pair.access_token }))))
      assert.are.equal(200, (profile(pair.access_token)))
    end)

    it("changes a genuine answer", function()
      box:faults({
        {
          kind = "transform",
          set = { expires_in = "3600", extra = { 1, 2 } },
          remove = { "refresh_token", "scope" },
        },
        {
          kind = "transform",
          raw = { expires_in = "1e400" },
          prefix = "\239\187\191",
          suffix = " trailing",
          headers = { ["Content-Type"] = "text/plain" },
        },
        { kind = "transform", encoding = "form" },
      })
      local status, answer = refresh()
      assert.are.equal(200, status)
      assert.are.equal("3600", answer.expires_in)
      assert.are.same({ 1, 2 }, answer.extra)
      assert.is_nil(answer.refresh_token or answer.scope)
      assert.are.equal(box:grant().access_token, answer.access_token)

      local _, text, headers = refresh(box:grant().refresh_token)
      assert.are.equal("text/plain", headers["content-type"])
      assert.are.equal("\239\187\191{", text:sub(1, 4))
      assert.are.equal("} trailing", text:sub(-10))
      assert.is_true(contains(text, '"expires_in":1e400,'))

      local _, form = refresh(box:grant().refresh_token)
      assert.are.equal(box:grant().refresh_token,
        codec.decode_form(form).refresh_token)
      assert.are.equal("3600", codec.decode_form(form).expires_in)
    end)

    it("hangs until the client goes", function()
      for when, rotations in pairs({ before = 0, after = 1 }) do
        box:reset()
        box:faults({ kind = "hang", when = when })
        local client = connect()
        client:send(token_request())
        client:settimeout(0.05)
        local _, reason, part = client:receive(1)
        assert.are.same({ "timeout", "" }, { reason, part })
        client:close()
        assert.are.equal(rotations, box:grant().rotations)
        assert.are.equal("hang", box:log().entries[1].fault)
      end
    end)

    it("closes without an answer", function()
      for when, rotations in pairs({ before = 0, after = 1 }) do
        box:reset()
        box:faults({ kind = "close", when = when })
        assert.are.equal("", (send_raw(token_request())))
        assert.are.equal(rotations, box:grant().rotations)
      end
    end)

    it("resets the connection", function()
      local function ending(reset)
        box:reset()
        box:faults({ kind = "close", reset = reset })
        local client = connect()
        client:send(token_request())
        assert(socket.select({ client }, nil, 10)[client])
        local problem = client:getoption("error")
        client:close()
        return problem
      end
      assert.are_not.equal(ending(false), ending(true))
    end)

    it("sends half of the answer after it has rotated", function()
      box:faults({ { kind = "half" }, { kind = "half", bytes = 20 } })
      local text = send_raw(token_request())
      local length = tonumber(text:match("Content%-Length: (%d+)"))
      local body = text:match("\r\n\r\n(.*)$")
      assert.are.equal(math.floor(length / 2), #body)
      assert.are.equal(1, box:grant().rotations)
      text = send_raw(token_request(box:grant().refresh_token))
      assert.are.equal(20, #text)
      assert.are.equal(2, box:grant().rotations)
    end)

    it("floods, and serves others meanwhile", function()
      box:faults({ kind = "flood" })
      local client = connect()
      client:send(token_request())
      local data = assert(client:receive(2 * 1024 * 1024))
      assert.are.equal(2 * 1024 * 1024, #data)
      assert.are.equal(1, box:grant().rotations)
      client:close()
      box:faults({ kind = "flood", bytes = 100000 })
      local text = send_raw(token_request(box:grant().refresh_token))
      assert.are.equal(100000, #text:match("(a+)$"))
    end)

    it("answers when it is told to", function()
      for when, rotations in pairs({ before = 0, after = 1 }) do
        box:reset()
        box:faults({ kind = "held", when = when })
        local client = connect()
        client:send(token_request())
        helper.eventually(function()
          return box:counts().faults == 1 and box:grant().rotations == rotations
        end)
        client:settimeout(0)
        assert.are.equal("timeout", select(2, client:receive(1)))
        box:clear_faults()
        client:settimeout(nil)
        assert.are.equal(200, (read_answer(client)))
        client:close()
        assert.are.equal(1, box:grant().rotations)
      end
    end)

    it("answers nobody whom a reset has overtaken", function()
      for _, kind in ipairs({ "held", "slow" }) do
        box:faults({ kind = kind, when = "before", seconds = 0.05 })
        local client = connect()
        client:send(token_request())
        helper.eventually(function()
          return box:counts().faults == 1
        end)
        box:reset()
        assert.is_nil((read_answer(client)))
        client:close()
        assert.are.equal(0, box:grant().rotations)
      end
    end)

    it("answers late", function()
      box:faults({
        { kind = "slow", seconds = 0.1 },
        { kind = "slow", seconds = 0.1, when = "before" },
      })
      for _ = 1, 2 do
        local started = socket.gettime()
        assert.are.equal(200, (refresh(box:grant().refresh_token)))
        assert.is_true(socket.gettime() - started >= 0.1)
      end
    end)

    it("closes a connection only when it is used again", function()
      for when, rotations in pairs({ before = 1, after = 2 }) do
        box:reset()
        box:faults({ kind = "close_reused", when = when })
        local client = connect()
        client:send(token_request())
        local status, pair = read_answer(client)
        assert.are.equal(200, status)
        client:send(token_request(pair.refresh_token))
        assert.is_nil((read_answer(client)))
        client:close()
        assert.are.equal(rotations, box:grant().rotations)
        assert.are.equal(0, #box:faults())
      end
    end)

    it("refuses faults that make no sense, all or none", function()
      local bad = {
        { kind = "unknown" },
        { kind = "answer" },
        { kind = "slow" },
        { kind = "half", when = "before" },
        { kind = "hang", when = "sometimes" },
        { kind = "hang", endpoint = "nowhere" },
        { kind = "hang", times = 0 },
        { kind = "hang", unknown = 1 },
        { kind = "answer", status = "500" },
        { kind = "answer", status = 20.5 },
        { kind = "answer", status = 500, headers = { a = {} } },
        { kind = "transform", encoding = "xml" },
      }
      local url = box.url .. "/sandbox/faults"
      for _, fault in ipairs(bad) do
        local status, answer =
          helper.http_json("POST", url, { { kind = "hang" }, fault })
        assert.are.equal(400, status)
        assert.are.equal("string", type(answer.error))
      end
      assert.are.same({}, box:faults())
    end)
  end)

  describe("speaking HTTP", function()
    local PAGE = "GET /.well-known/oauth-authorization-server HTTP/1.1\r\n"
      .. "Host: sandbox\r\n"

    it("keeps connections alive", function()
      local client = connect()
      local token = box.refresh_token
      for _ = 1, 3 do
        client:send(token_request(token))
        local status, pair = read_answer(client)
        assert.are.equal(200, status)
        token = pair.refresh_token
      end
      client:close()
      local log = box:log()
      assert.are.equal(1, log.counts.connections)
      assert.are.equal(3, log.counts.rotations)
      assert.is_false(log.entries[1].reused)
      assert.is_true(log.entries[3].reused)
    end)

    it("closes when it is asked to, and after HTTP/1.0", function()
      local closing = send_raw(token_request(nil, "Connection: close\r\n"))
      assert.is_true(contains(closing, "Connection: close\r\n"))
      local old = send_raw(PAGE:gsub("1%.1", "1.0") .. "\r\n")
      assert.is_true(contains(old, "HTTP/1.1 200 OK"))
    end)

    it("answers requests that were sent at once, in order", function()
      local text = send_raw(
        PAGE .. "\r\n" .. "GET /nowhere HTTP/1.1\r\nHost: sandbox\r\n\r\n"
          .. PAGE .. "Connection: close\r\n\r\n")
      local seen = {}
      for status in text:gmatch("HTTP/1%.1 (%d+) ") do
        seen[#seen + 1] = status
      end
      assert.are.same({ "200", "401", "200" }, seen)
    end)

    it("reads a request that arrives byte by byte", function()
      local client = connect()
      client:setoption("tcp-nodelay", true)
      for byte in token_request():gmatch(".") do
        client:send(byte)
      end
      assert.are.equal(200, (read_answer(client)))
      client:close()
    end)

    it("reads chunked bodies", function()
      local body = codec.encode_json(refresh_body())
      local chunked = ("%x;ext=1\r\n%s\r\n%X\r\n%s\r\n0\r\nTrailer: x\r\n\r\n")
        :format(10, body:sub(1, 10), #body - 10, body:sub(11))
      local client = connect()
      client:send("POST /oauth2/token HTTP/1.1\r\nHost: sandbox\r\n"
        .. "Content-Type: application/json\r\n"
        .. "Transfer-Encoding: chunked\r\n\r\n" .. chunked
        .. PAGE .. "\r\n")
      assert.are.equal(200, (read_answer(client)))
      assert.are.equal(200, (read_answer(client)))
      client:close()
    end)

    it("invites a body that waits for 100 Continue", function()
      local client = connect()
      local head, body =
        token_request(nil, "Expect: 100-continue\r\n"):match("^(.-\r\n\r\n)(.*)$")
      client:send(head)
      assert.are.equal("HTTP/1.1 100 Continue", client:receive("*l"))
      assert.are.equal("", client:receive("*l"))
      client:send(body)
      assert.are.equal(200, (read_answer(client)))
      client:close()
    end)

    it("answers HEAD without a body", function()
      local text = send_raw((PAGE:gsub("GET", "HEAD"))
        .. "Connection: close\r\n\r\n")
      assert.is_true(tonumber(text:match("Content%-Length: (%d+)")) > 0)
      assert.are.equal("\r\n\r\n", text:sub(-4))
    end)

    it("turns malformed requests away and lives on", function()
      local post = "POST /oauth2/token HTTP/1.1\r\nHost: sandbox\r\n"
      local cases = {
        { "400", "nonsense\r\n\r\n" },
        { "400", "\0\1\2\255\r\n\r\n" },
        { "400", "GET /a b HTTP/1.1\r\n\r\n" },
        { "400", "GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n" },
        { "400", "GET / HTTP/1.1\r\n\r\n" },
        { "400", "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n" },
        { "400", "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n" },
        { "400", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n" },
        { "505", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" },
        { "400", post .. "Content-Length: -1\r\n\r\n" },
        { "400", post .. "Content-Length: 1x\r\n\r\n" },
        { "400", post .. "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab" },
        { "413", post .. "Content-Length: 99999999999999999999\r\n\r\n" },
        { "413", post .. "Content-Length: 1048577\r\n\r\n" },
        { "413", post .. "Content-Length: 4000000\r\n\r\n"
          .. ("a"):rep(4000000) },
        { "400", post .. "Content-Length: 1\r\n"
          .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" },
        { "501", post .. "Transfer-Encoding: gzip\r\n\r\n" },
        { "400", post .. "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" },
        { "400", post .. "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n" },
        { "413", post .. "Transfer-Encoding: chunked\r\n\r\nfffffff\r\n" },
        { "431", "GET /" .. ("a"):rep(40000) },
        { "431", "GET / HTTP/1.1\r\n" .. ("X: y\r\n"):rep(10000) },
      }
      for _, case in ipairs(cases) do
        local text = send_raw(case[2])
        assert.are.equal(case[1], text:match("^HTTP/1%.1 (%d+) "))
      end
      local counts = box:counts()
      assert.are.equal(#cases, counts.malformed)
      assert.are.equal(0, counts.requests)
      assert.are.equal(200, (refresh()))
    end)

    it("forgets clients that leave in the middle", function()
      for _, part in ipairs({ "", "POST /oau", token_request():sub(1, -2) }) do
        local client = connect()
        client:send(part)
        client:close()
      end
      assert.are.equal(200, (refresh()))
      local counts = box:counts()
      assert.are.equal(1, counts.requests)
      assert.are.equal(0, counts.malformed)
    end)

    it("serves many connections at once", function()
      local count, clients = 150, {}
      box:faults({ kind = "held", times = "always" })
      local tokens = {}
      for i = 1, count do
        tokens[i] = box:open_grant({ account = "many-" .. i }).refresh_token
      end
      for i = 1, count do
        clients[i] = connect()
        clients[i]:send(token_request(tokens[i]))
      end
      helper.eventually(function()
        return box:counts().rotations == count
      end)
      box:clear_faults()
      for i = 1, count do
        assert.are.equal(200, (read_answer(clients[i])))
        clients[i]:close()
      end
      assert.are.equal(count, box:counts().rotations)
      assert.are.equal(0, box:counts().overlaps)
    end)
  end)

  describe("under control", function()
    it("logs what happened without any token", function()
      local _, pair = refresh()
      refresh()
      profile(pair.access_token)
      local _, text = helper.http_json("GET", box.url .. "/sandbox/log")
      local entries = text.entries
      assert.are.same({ access = "A1", refresh = "R4" }, entries[1].issued)
      local seen = {}
      for i, entry in ipairs(entries) do
        seen[i] = { entry.endpoint, entry.outcome, entry.status, entry.token }
      end
      assert.are.same({
        { "token", "rotated", 200, "R1" },
        { "token", "reuse", 400, "R1" },
        { "api", "unauthorized", 401, "A1" },
      }, seen)
      assert.are.equal("default", entries[1].account)
      assert.are.equal("refresh_token", entries[1].grant_type)
      assert.is_true(math.abs(entries[1].time - socket.gettime()) < 60)
      local raw = codec.encode_json(text)
      assert.is_false(contains(raw, pair.access_token))
      assert.is_false(contains(raw, pair.refresh_token))
      assert.is_false(contains(raw, box.refresh_token))
      assert.is_false(contains(raw, box.client_secret))
    end)

    it("gives as many entries as asked, and none of its own", function()
      refresh()
      refresh()
      assert.are.equal(2, box:log(1).entries[1].number)
      assert.are.same({}, box:log(0).entries)
      assert.are.equal(2, box:counts().requests)
      assert.are.equal(2, box:counts().connections)
    end)

    it("changes settings, all or none", function()
      local now = box:settings({ lifetime = 1.5, rotate = false })
      assert.are.equal(1.5, now.lifetime)
      assert.is_nil(now.client_secret)
      assert.are.equal(1.5, select(2, refresh()).expires_in)
      local url = box.url .. "/sandbox/settings"
      for name, value in pairs({
        port = 1,
        unknown = 1,
        latency = -1,
        rotate = "yes",
        consent = "maybe",
        redirect_uris = { 1 },
      }) do
        local status, answer =
          helper.http_json("POST", url, { lifetime = 9, [name] = value })
        assert.are.equal(400, status)
        assert.is_true(contains(answer.error, name))
      end
      assert.are.equal(1.5, box:settings().lifetime)
    end)

    it("expires access tokens, of one account or of all", function()
      local _, alpha = refresh(box:grant("alpha").refresh_token)
      local _, beta = refresh(box:grant("beta").refresh_token)
      assert.are.equal(1, box:expire("alpha"))
      assert.are.equal(401, (profile(alpha.access_token)))
      assert.are.equal(200, (profile(beta.access_token)))
      assert.are.equal(1, box:expire())
      assert.are.equal(200, (refresh(alpha.refresh_token)))
    end)

    it("revokes grants, and opens new ones", function()
      assert.are.equal(1, box:revoke_all("alpha"))
      assert.are.equal(2, box:revoke_all())
      assert.are.equal(400, (refresh()))
      local grant = box:open_grant({ account = "default" })
      assert.are.equal(200, (refresh(grant.refresh_token)))
      assert.are.equal(400, (helper.http_json("POST",
        box.url .. "/sandbox/grants", { unknown = "x" })))
    end)

    it("starts again after a reset", function()
      refresh()
      box:settings({ lifetime = 1 })
      box:faults({ kind = "hang", times = "always" })
      box:reset()
      assert.are.equal(3600, box:settings().lifetime)
      assert.are.same({}, box:faults())
      assert.are.equal(0, box:counts().requests)
      assert.are.equal(200, (refresh()))
    end)

    it("says what it does not know", function()
      local url = box.url .. "/sandbox/"
      assert.are.equal(404, (helper.http_json("GET", url .. "unknown")))
      assert.are.equal(400, (helper.http_json("POST", url .. "settings", "{")))
      assert.are.equal(400, (helper.http_json("POST", url .. "faults", "1")))
    end)
  end)
end)

describe("a sandbox in the same process", function()
  local server, now

  before_each(function()
    now = 1000
    server = assert(sandbox.new({
      refresh_token = "first",
      refresh_tokens = 2,
      accounts = { "alpha", { account = "beta", refresh_token = "second" } },
      lifetime = 10,
      clock = function()
        return now
      end,
    }))
  end)

  after_each(function()
    server:stop()
  end)

  local function ask(text)
    local client = assert(socket.connect("127.0.0.1", server.port))
    client:settimeout(0)
    client:send(text)
    local answer = ""
    repeat
      server:step(1)
      local data, reason, part = client:receive("*a")
      answer = answer .. (data or part)
    until data or reason == "closed"
    client:close()
    return answer
  end

  local function profile(token)
    return tonumber(ask("GET /v1/users/me/profile HTTP/1.0\r\n"
      .. "Authorization: Bearer " .. token .. "\r\n\r\n"):match(" (%d+) "))
  end

  it("goes by the clock that it is given", function()
    local pair = assert(server.store:refresh("first"))
    assert.are.equal(200, profile(pair.access_token))
    now = 1010
    assert.are.equal(401, profile(pair.access_token))
    assert.are.equal(1, server:log().counts.api_401)
    assert.are.equal(1010, server:log().entries[2].time)
    server.clock = function()
      return 1001
    end
    assert.are.equal(200, profile(pair.access_token))
  end)

  local TOKEN_BODY = codec.encode_form({
    client_id = "sandbox-client",
    client_secret = "sandbox-secret",
    grant_type = "refresh_token",
    refresh_token = "first",
  })
  local TOKEN_REQUEST = "POST /oauth2/token HTTP/1.1\r\nHost: sandbox\r\n"
    .. "Content-Type: application/x-www-form-urlencoded\r\n"
    .. "Content-Length: " .. #TOKEN_BODY .. "\r\n\r\n" .. TOKEN_BODY

  local function connect_and_ask()
    local client = assert(socket.connect("127.0.0.1", server.port))
    client:send(TOKEN_REQUEST)
    return client
  end

  local function step_until(name)
    repeat
      server:step(1)
      local counts = server:log(0).counts
    until counts[name] == 1
  end

  it("notices who has left before it takes who has come", function()
    server:faults({ { kind = "hang" } })
    local gone = connect_and_ask()
    step_until("faults")
    gone:close()
    local client = connect_and_ask()
    step_until("rotations")
    assert.are.equal(0, server:log().counts.overlaps)
    client:close()
  end)

  it("sends its answers without delay", function()
    local client = connect_and_ask()
    step_until("rotations")
    local line = next(server.open)
    assert.is_true(line.stream.socket:getoption("tcp-nodelay"))
    client:close()
  end)

  it("has a grant for each account", function()
    local names = {}
    for i, grant in ipairs(server:grants()) do
      names[i] = grant.account
    end
    assert.are.same({ "default", "account-1", "account-2", "alpha", "beta" },
      names)
    assert.are.equal("first", server:grants()[1].refresh_token)
    assert.are.equal("second", server:grants()[5].refresh_token)
  end)

  it("can be steered without HTTP", function()
    assert.are.equal(5, server:settings({ lifetime = 5 }).lifetime)
    assert.are.equal(1, #server:faults({ { kind = "hang" } }))
    assert.is_nil((server:faults({ { kind = "unknown" } })))
    server:clear_faults()
    assert.are.equal(0, #server:faults())
    assert.are.equal(5, server:revoke_all())
  end)

  it("raises on a setting that is wrong, and names it", function()
    for name, value in pairs({
      unknown = 1,
      host = "0.0.0.0",
      port = "80",
      lifetime = "1",
      client_id = "",
      accounts = { 1 },
    }) do
      assert.has_error(function()
        local ok, message = pcall(sandbox.new, { [name] = value })
        assert(not ok and contains(message, name))
        error("raised")
      end, "raised")
    end
  end)

  it("says why it cannot listen", function()
    local other, message = sandbox.new({ port = server.port })
    assert.is_nil(other)
    assert.is_true(contains(message, tostring(server.port)))
  end)
end)

describe("the sandbox program", function()
  local CODE = 'require("lucidauth.sandbox").main(arg)'

  local function run(...)
    return helper.run({ helper.interpreter, "-e", CODE, "--", ... })
  end

  it("prints its URL first, then how to use it, and ends with stdin", function()
    local ready = helper.tmpdir() .. "/ready"
    local stdout, stderr, exitcode = run("--port", "0",
      "--refresh-token=first", "--ready-file", ready, "--until-stdin-closes")
    assert.are.same({ "", 0 }, { stderr, exitcode })
    local url = stdout:match("^lucid sandbox on (http://127%.0%.0%.1:%d+)\n")
    assert.are.equal(url .. "\n", helper.read_file(ready))
    for name, value in pairs({
      LUCID_API_URL = url,
      LUCID_CLIENT_ID = "sandbox-client",
      LUCID_CLIENT_SECRET = "sandbox-secret",
      LUCID_REFRESH_TOKEN = "first",
    }) do
      assert.is_true(contains(stdout, name .. "=" .. value .. "\n"))
    end
  end)

  it("takes its options as a list as well", function()
    local stdout, _, exitcode = helper.run_lua(
      'require("lucidauth.sandbox").main({ "--until-stdin-closes" })')
    assert.are.equal(0, exitcode)
    assert.is_true(contains(stdout, "lucid sandbox on http://"))
  end)

  it("takes every setting as an option", function()
    local options, program = settings.parse({
      "--port=1", "--no-rotate", "--latency", "0.5", "--account", "a",
      "--account=b", "--redirect-uri", "http://localhost/?x=y", "--help",
      "--rotate-after-latency", "--ready-file", "r",
    })
    assert.are.same({
      port = 1,
      rotate = false,
      latency = 0.5,
      accounts = { "a", "b" },
      redirect_uris = { "http://localhost/?x=y" },
      rotate_after_latency = true,
    }, options)
    assert.are.same({ help = true, ready_file = "r" }, program)
  end)

  it("explains itself", function()
    local stdout, _, exitcode = run("--help")
    assert.are.equal(0, exitcode)
    for name in pairs(settings.defaults()) do
      local flag = name:gsub("_", "-"):gsub("s$", "")
      assert.is_true(contains(stdout, flag))
    end
  end)

  it("does not start with options that it does not understand", function()
    for _, words in ipairs({
      { "--unknown" },
      { "--no-latency" },
      { "--port" },
      { "--port", "many" },
      { "--rotate=false" },
      { "--host=0.0.0.0" },
      { "stray", "words" },
    }) do
      local stdout, stderr, exitcode =
        helper.run_lua(("require('lucidauth.sandbox').main({ %q, %s })"):format(
          words[1], words[2] and ("%q"):format(words[2]) or "nil"))
      assert.are.same({ "", 2 }, { stdout, exitcode })
      assert.is_true(contains(stderr, "lucid sandbox: "))
    end
  end)

  it("stops at SIGTERM", function()
    local box = helper.start_sandbox()
    local port = box.url:match(":(%d+)$")
    box:stop()
    assert.is_nil((socket.connect("127.0.0.1", port)))
  end)

  it("does not outlive a parent that was killed", function()
    local path = helper.tmpdir() .. "/url"
    local _, _, exitcode = helper.run_lua([[
      local helper = require("spec.helper")
      local box = helper.start_sandbox()
      helper.write_file(os.getenv("URL_FILE"), box.url)
      os.execute("kill -KILL $PPID")
    ]], { URL_FILE = path, TMPDIR = helper.tmpdir() })
    assert.are.equal(137, exitcode)
    local port = helper.read_file(path):match(":(%d+)$")
    helper.eventually(function()
      local client = socket.connect("127.0.0.1", port)
      if client then
        client:close()
      end
      return not client
    end)
  end)
end)
