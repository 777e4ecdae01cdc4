-- examples/openresty/nginx.conf as it stands, and openresty.conf, which it includes: the proxy,
-- the metrics, and the status page, looked at in a real browser.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")
local tokens = require("spec.tokens")

local contains = nginx.assert_contains
local fixture = nginx.fixture({ accounts = { "anna", "bert" } })

local function start(http)
  fixture.server = nginx.start({ sandbox = fixture.sandbox, example = true, http = http })
end

local function assert_no_secret(text)
  for _, grant in ipairs(fixture.sandbox:grants()) do
    assert.is_nil(text:find(grant.refresh_token, 1, true))
    assert.is_nil(grant.access_token and text:find(grant.access_token, 1, true))
  end
  assert.is_nil(text:find(fixture.sandbox.client_secret, 1, true))
end

describe("the proxy", function()
  it("adds what the API wants to see", function()
    start()
    local status, body = fixture.server:get("/lucid/users/me/profile")
    assert.are.equal(200, status)
    assert.is_truthy(codec.decode_json(body).email)
    local entries = fixture.sandbox:log().entries
    assert.are.equal("/users/me/profile", entries[#entries].path)
    fixture:assert_no_problems()
  end)

  for _, method in ipairs({ "GET", "POST", "DELETE" }) do
    it("sends a request once more after a 401: " .. method, function()
      start()
      assert.are.equal(200, (fixture.server:get("/lucid/users/me/profile")))
      fixture.sandbox:expire()
      local sent = method == "POST" and ("x"):rep(40000) or nil
      local status = fixture.server:get("/lucid/documents?page=2", { method = method, body = sent })
      assert.are.equal(404, status)
      local counts, entries = fixture.sandbox:counts(), fixture.sandbox:log(3).entries
      assert.are.equal(2, counts.token_requests)
      assert.are.equal(1, counts.api_401)
      for _, number in ipairs({ 1, 3 }) do
        assert.are.equal(method, entries[number].method)
        assert.are.equal("/documents", entries[number].path)
        assert.are.equal("page=2", entries[number].query)
        assert.are.equal(sent and sent:sub(1, 4096) or "", entries[number].body)
      end
      assert.are.equal("token", entries[2].endpoint)
      fixture:assert_no_problems("is buffered to a temporary file")
    end)
  end

  it("passes a second 401 on, and other errors as they are", function()
    start()
    assert.are.equal(404, (fixture.server:get("/lucid/nowhere")))
    fixture.sandbox:faults({ kind = "answer", endpoint = "api", status = 401, times = 2 })
    assert.are.equal(401, (fixture.server:get("/lucid/users/me/profile")))
    assert.are.equal(200, (fixture.server:get("/lucid/users/me/profile")))
    fixture:assert_no_problems()
  end)

  it("answers 503 when there is no token", function()
    fixture.sandbox:revoke_all()
    start()
    assert.are.equal(503, (fixture.server:get("/lucid/users/me/profile")))
    assert.are.equal(0, fixture.sandbox:counts().api_requests)
    contains(fixture.server:log(), "Log in to Lucid again")
  end)
end)

describe("the metrics", function()
  it("are Prometheus text without secrets", function()
    start()
    fixture.server:get("/lucid/users/me/profile")
    local status, body, headers = fixture.server:get("/metrics")
    assert.are.equal(200, status)
    assert.are.equal("text/plain; version=0.0.4; charset=utf-8", headers["content-type"])
    for line in body:gmatch("[^\n]+") do
      assert.is_truthy(line:find("^# HELP lucidauth_[%l_]+ %S")
        or line:find("^# TYPE lucidauth_[%l_]+ %l+$")
        or line:find('^lucidauth_[%l_]+{worker="%d+",account="default",?[%l_="]*} [%d.]+$'), line)
    end
    contains(body, "# TYPE lucidauth_refreshes_total counter", "lucidauth_seconds_to_expiry{",
      "lucidauth_waiters{", "lucidauth_generation{")
    assert_no_secret(body)
  end)
end)

local FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
  .. "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars "
  .. "--window-size=800,1150"

-- A page as a browser shows it: its document, and a picture.
local function look_at(url)
  local folder = helper.tmpdir()
  local command = ("timeout 60 chromium %s --user-data-dir=%s/profile "
    .. "--screenshot=%s/page.png --dump-dom %s"):format(FLAGS, folder, folder, helper.quote(url))
  local out = helper.run(command, { HOME = folder })
  return out, helper.read_file(folder .. "/page.png") or ""
end

-- The pixels of a picture, one byte each for red, green and blue.
local function pixels_of(png)
  local path = helper.tmpdir() .. "/page.png"
  helper.write_file(path, png)
  return helper.run({ "python3", "-c", [[
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
at, idat = 8, b""
while at < len(data):
    size, kind = struct.unpack(">I4s", data[at:at + 8])
    body = data[at + 8:at + 8 + size]
    if kind == b"IHDR":
        width, height, depth, colour = struct.unpack(">IIBB", body[:10])
    if kind == b"IDAT":
        idat += body
    at += size + 12
bytes_each = {2: 3, 6: 4}[colour]
raw, stride, above, counts = zlib.decompress(idat), width * bytes_each, None, {}
above = bytearray(stride)
for row in range(height):
    start = row * (stride + 1)
    kind, line = raw[start], bytearray(raw[start + 1:start + 1 + stride])
    for i in range(stride):
        left = line[i - bytes_each] if i >= bytes_each else 0
        corner = above[i - bytes_each] if i >= bytes_each else 0
        if kind == 1: line[i] = (line[i] + left) & 255
        elif kind == 2: line[i] = (line[i] + above[i]) & 255
        elif kind == 3: line[i] = (line[i] + (left + above[i]) // 2) & 255
        elif kind == 4:
            p = left + above[i] - corner
            a, b, c = abs(p - left), abs(p - above[i]), abs(p - corner)
            nearest = left if a <= b and a <= c else above[i] if b <= c else corner
            line[i] = (line[i] + nearest) & 255
    above = line
    for i in range(0, stride, bytes_each):
        pixel = bytes(line[i:i + 3]).hex()
        counts[pixel] = counts.get(pixel, 0) + 1
for pixel, count in counts.items():
    print(pixel, count)
]], path })
end

-- Measures a page that is shown: how wide it is, how high its smallest text, and
-- which texts of a picture cover each other.
local MEASURE = [[
<script>
const texts = [...document.querySelectorAll("svg text")].filter(t => t.getClientRects().length)
const boxes = texts.map(t => t.getBoundingClientRect()), covered = []
boxes.forEach((a, i) => boxes.slice(0, i).forEach((b, j) => {
  if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
    covered.push(texts[i].textContent + " / " + texts[j].textContent)
}))
const outside = boxes.some(a => a.left < 0 || a.right > innerWidth)
parent.document.title = [innerWidth, document.documentElement.scrollWidth, texts.length,
  Math.min(...boxes.map(a => a.height)).toFixed(1), outside, covered.join(", ")].join(" ")
</script>]]

-- In a frame, since a browser's window has a least width.
local function measure(document, width)
  local path = helper.tmpdir() .. "/page.html"
  local framed = document:gsub('<meta http%-equiv="refresh"[^>]*>', "") .. MEASURE
  helper.write_file(path, ([[<!DOCTYPE html><title></title>
    <iframe width="%d" height="1100" style="border: 0" srcdoc="%s"></iframe>]]):format(width,
    (framed:gsub("&", "&amp;"):gsub('"', "&quot;"))))
  local seen = look_at("file://" .. path):match("<title>(.-)</title>")
  local inner, scroll, texts, least, outside, covered =
    seen:match("^(%d+) (%d+) (%d+) ([%d.]+) (%l+) (.*)$")
  return {
    width = tonumber(inner),
    scroll = tonumber(scroll),
    texts = tonumber(texts),
    least = tonumber(least),
    outside = outside,
    covered = covered,
  }
end

describe("the status page", function()
  it("is for this machine alone, and holds no secret", function()
    start()
    local status, body, headers
    -- which worker answers is chance, and each fetches its token when it starts
    nginx.eventually(function()
      status, body, headers = fixture.server:get("/token-status")
      return status ~= 200 or body:find(">ready</span>", 1, true)
    end)
    assert.are.equal(200, status)
    assert.are.equal("text/html; charset=utf-8", headers["content-type"])
    assert.are.equal("no-store", headers["cache-control"])
    contains(body, '<section id="default">', ">ready</span>", "lifetime 1 h")
    assert_no_secret(body)
    local text = helper.read_file(fixture.server.prefix .. "/openresty.conf")
    for _, name in ipairs({ "token%-status", "metrics" }) do
      contains(text:match("location = /" .. name .. " (%b{})"), "allow 127.0.0.1;", "deny all;")
    end
  end)

  it("shows accounts in every state to a browser", function()
    local folder, port = nginx.folder(), helper.free_port()
    for name, left in pairs({ anna = 2400, bert = 100 }) do
      local path = folder .. "/" .. name .. ".json"
      tokens.write(path, tokens.record(tokens.pair(fixture.sandbox, name), left))
      nginx.give(path)
    end
    start(([[
      server {
        listen 127.0.0.1:%d;
        location / { content_by_lua_block {
          local lucid = require("lucidauth")
          local own = lucid.new({ storage = { type = "file", directory = %q } })
          own:token("anna") own:refresh("anna") own:token("bert") own:token("<carl>")
          repeat ngx.sleep(0.01) until #own:status("bert").past > 0
          own:reject(own:token("anna"), "anna") own:token("anna")
          ngx.header["Content-Type"] = "text/html"
          ngx.print(require("status_page").render(own, { "anna", "bert", "<carl>" }))
          own:close()
        } }
      }
    ]]):format(port, folder))
    fixture:await_posts(3)
    fixture.sandbox:faults({ { kind = "pass" },
      { kind = "answer", status = 429, headers = { ["Retry-After"] = "600" } } })
    local document, picture = look_at("http://127.0.0.1:" .. port .. "/")
    local anna = document:match('<section id="anna">.-</section>') or document
    local bert = document:match('<section id="bert">.-</section>') or document
    local carl = document:match('<section id="&lt;carl&gt;">.-</section>') or document
    contains(anna, '<span class="state ready">ready</span>', "left</small>", "life left: ")
    contains(carl, '<span class="state failing">failing</span>', "There is no token that works.",
      "<b>config</b>", 'for the account "&lt;carl&gt;"')
    contains(anna, "ago: refreshed", "lifetime 1 h", "ago: the API rejected the token")
    contains(bert, "ago: a refresh failed (rate_limited)", "<b>rate_limited</b>", " min ")
    contains(anna, "<dt>next refresh</dt><dd>in ")
    contains(bert, "<dt>next try</dt><dd>in ")
    -- told by its shape, on the time line and in the key
    assert.are.equal(2, select(2, bert:gsub("<path ", "")))
    assert.is_nil(anna:find("<path ", 1, true))
    assert_no_secret(document)

    local narrow, wide = measure(document, 400), measure(document, 800)
    assert.are.equal(400, narrow.width)
    assert.are.equal(400, narrow.scroll)
    assert.are.equal("false", narrow.outside)
    assert.are.equal("", narrow.covered)
    assert.are.equal(wide.least, narrow.least)
    assert.is_true(narrow.texts > 6 and narrow.texts < wide.texts)
    assert.are.equal("", wide.covered)

    -- what the eye sees: the bars and badges in their colours
    local pixels = {}
    for pixel, count in pixels_of(picture):gmatch("(%x+) (%d+)") do
      pixels[pixel] = tonumber(count)
    end
    assert.is_true((pixels["17915a"] or 0) > 5000, "green: the life that is left")
    assert.is_true((pixels["c8322b"] or 0) > 500, "red: what fails")
    assert.is_true((pixels.b36b00 or 0) > 50, "orange: what the API rejected, on the time line")
    assert.is_true((pixels.ffffff or 0) > 100000, "white: the cards")
  end)
end)
