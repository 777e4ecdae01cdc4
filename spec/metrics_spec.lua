-- lucid.metrics() in a plain script: Prometheus text of every account asked for.

local helper = require("spec.helper")
local lucid = require("lucidauth")
local tokens = require("spec.tokens")

local sandbox, folder, client

setup(function()
  sandbox = helper.start_sandbox({ accounts = { "anna", "bert" } })
end)

teardown(function()
  sandbox:stop()
end)

before_each(function()
  sandbox:reset()
  folder = helper.tmpdir()
  client = lucid.new({
    client_id = sandbox.client_id,
    client_secret = sandbox.client_secret,
    api_url = sandbox.url,
    storage = { type = "file", directory = folder },
  })
end)

after_each(function()
  client:close()
end)

local function log_in(account, left)
  local answer = tokens.pair(sandbox, account)
  tokens.write(folder .. "/" .. account .. ".json", tokens.record(answer, left))
  return answer
end

-- The value of a sample; its labels as they are written.
local function value(text, name, labels)
  for line in text:gmatch("[^\n]+") do
    if line:sub(1, #name + #labels + 3) == name .. "{" .. labels .. "} " then
      return tonumber(line:sub(#name + #labels + 4))
    end
  end
end

it("counts refreshes and failures by account, and says how long tokens live", function()
  log_in("anna", 2000)
  log_in("bert", 2000)
  assert(client:token("anna"))
  assert(client:refresh("anna"))
  assert(client:refresh("anna"))
  sandbox:faults({ kind = "answer", status = 400, body = { error = "invalid_grant" } })
  client:refresh("bert")
  local text = client:metrics()
  assert.are.equal(2, value(text, "lucidauth_refreshes_total", 'account="anna"'))
  assert.are.equal(0, value(text, "lucidauth_refreshes_total", 'account="bert"'))
  assert.are.equal(1, value(text, "lucidauth_refresh_failures_total",
    'account="bert",code="invalid_grant"'))
  local left = value(text, "lucidauth_seconds_to_expiry", 'account="anna"')
  assert.is_true(left > 3000 and left <= 3600, left)
  assert.are.equal(0, value(text, "lucidauth_waiters", 'account="anna"'))
  assert.are.equal(0, value(text, "lucidauth_unsaved", 'account="anna"'))
  assert.are.equal(0, value(text, "lucidauth_generation", 'account="anna"') % 2)
end)

it("is well formed, without secrets", function()
  local answer = log_in("anna", 2000)
  assert(client:token("anna"))
  local text = client:metrics("app_")
  for line in text:gmatch("[^\n]+") do
    assert.is_truthy(line:find("^# HELP app_[%l_]+ %S") or line:find("^# TYPE app_[%l_]+ %l+$")
      or line:find('^app_[%l_]+{account="[%l]+"[^{}]*} [%d.e+-]+$'), line)
  end
  for _, secret in ipairs({ answer.access_token, answer.refresh_token, sandbox.client_secret }) do
    assert.is_nil(text:find(secret, 1, true))
  end
end)

it("is there for the module's own client, and refuses a prefix that no metric may have", function()
  local out, err = helper.run_lua([[
    local lucid = require("lucidauth")
    assert(lucid.token())
    io.write(lucid.metrics())
    assert(not pcall(lucid.metrics, "1x"))
    assert(not pcall(lucid.metrics, 5))
  ]], {
    LUCID_API_URL = sandbox.url,
    LUCID_CLIENT_ID = sandbox.client_id,
    LUCID_CLIENT_SECRET = sandbox.client_secret,
    LUCID_REFRESH_TOKEN = sandbox:grant("anna").refresh_token,
    LUCID_TOKEN_FILE = folder .. "/token.json",
  })
  assert.are.equal("", err)
  assert.are.equal(1, value(out, "lucidauth_refreshes_total", 'account="default"'))
end)

it("speaks of the accounts that are kept, the last ones used", function()
  local small = lucid.new({
    client_id = "x", api_url = sandbox.url, max_accounts = 4,
    storage = { type = "file", directory = folder },
  })
  for i = 1, 9 do
    local record = { access_token = "A", refresh_token = "R", expires_at = os.time() + 3600 }
    tokens.write(folder .. "/user-" .. i .. ".json", record)
    assert(small:token("user-" .. i))
    assert(small:token("user-" .. i))
  end
  local text, count = small:metrics(), 0
  for i = 1, 9 do
    local said = value(text, "lucidauth_refreshes_total", ('account="user-%d"'):format(i))
    count = count + (said and 1 or 0)
    if i >= 8 then
      assert.are.equal(0, said)
    end
  end
  assert.is_true(count <= 4, count)
  small:close()
end)
