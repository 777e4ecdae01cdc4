-- The file that Lucid's own example script keeps, both ways, against a real
-- Python. It writes `expiration` as naive local time.

local codec = require("lucidauth.sandbox.codec")
local helper = require("spec.helper")
local tokens = require("spec.tokens")

local DAY = 86400

-- The script's way with an answer; `left` stands for its expires_in.
local WRITE = [[
import json, sys
from datetime import datetime, timedelta
path, left, microseconds = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "yes"
ago = float(sys.argv[4])
info = json.load(sys.stdin)
expiration = datetime.fromtimestamp(datetime.now().timestamp() - ago) + timedelta(seconds=left)
if not microseconds:
    expiration = expiration.replace(microsecond=0)
info["expiration"] = expiration.isoformat()
with open(path, "w") as file:
    json.dump(info, file)
print(expiration.timestamp() - datetime.now().timestamp())
]]

-- Its way with the file: the token if it has not expired.
local READ = [[
import json, sys
from datetime import datetime
with open(sys.argv[1]) as file:
    info = json.load(file)
expiration = datetime.fromisoformat(info["expiration"])
assert expiration.tzinfo is None
print(info["access_token"] if datetime.now() < expiration else "expired")
print(info["refresh_token"])
print(expiration.isoformat(timespec="microseconds"))
print(datetime.fromtimestamp(info["expires_at"]).isoformat(timespec="microseconds"))
]]

-- A program of our users; prints the token and how long it lives.
local OURS = [[
local lucid = require("lucidauth")
print(assert(lucid.token()))
print(lucid.status().expires_in)
]]

local fixture = require("spec.fixture").new(setup, teardown, before_each, after_each)
local sandbox = fixture.sandbox

local function python(code, zone, input, ...)
  local out, err, status =
    helper.run({ "python3", "-c", code, ... }, { TZ = zone }, input)
  assert(status == 0, err)
  return helper.lines(out)
end

-- Has Python write a file, as if so many seconds ago; returns the seconds that
-- the token has left by it.
local function write_in(zone, answer, left, microseconds, ago)
  local lines = python(WRITE, zone, codec.encode_json(answer), fixture.path, tostring(left),
    microseconds == false and "no" or "yes", tostring(ago or 0))
  return tonumber(lines[1])
end

-- Returns the token and the seconds that it has left.
local function ours_in(zone)
  local out, err, status = helper.run_lua(OURS, fixture:env({ TZ = zone }))
  assert(status == 0, err)
  local token, left = out:match("^(%S+)\n(%S+)\n$")
  return token, tonumber(left)
end

-- Ours hands this token out, which has so many seconds by the file.
local function assert_agreed(zone, token, seconds)
  local served, left = ours_in(zone)
  assert.are.equal(token, served)
  assert.is_true(math.abs(left - seconds) < 30)
end

-- Ours hands this token out, of which so many seconds are left at most.
local function assert_served(zone, token, most)
  local served, left = ours_in(zone)
  assert.are.equal(token, served)
  assert.is_true(left <= most and left > most - 100)
end

-- A time zone that changes its clocks by an hour in `minutes`; "back" or
-- "forward" from then on. POSIX.1-2017, 8.3: days count from 0.
local function changing_zone(way, minutes)
  local now = os.time()
  local first, second = "STD0", "DST-1"
  local offset = way == "back" and 3600 or 0
  local moment = now + minutes * 60 + offset
  local day = tonumber(os.date("!%j", moment)) - 1
  local rule = ("%d/%s"):format(day, os.date("!%H:%M:%S", moment))
  -- Half a year away, so that only this change is near.
  local other = ("%d/0"):format((day + 182) % 365)
  if way == "back" then
    return ("%s%s,%s,%s"):format(first, second, other, rule)
  end
  return ("%s%s,%s,%s"):format(first, second, rule, other)
end

local ZONES = {
  "UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe",
  "Pacific/Kiritimati",
}

describe("a file that the example script wrote", function()
  for _, zone in ipairs(ZONES) do
    it("is served as long as it says, in " .. zone, function()
      local answer = tokens.pair(sandbox)
      local before = fixture:posts()
      for _, microseconds in ipairs({ true, false }) do
        local seconds = write_in(zone, answer, 3000, microseconds)
        assert_agreed(zone, answer.access_token, seconds)
      end
      assert.are.equal(before, fixture:posts())
    end)

    it("is refreshed when it has expired, in " .. zone, function()
      local answer = tokens.pair(sandbox)
      write_in(zone, answer, -1)
      local token = ours_in(zone)
      assert.are_not.equal(answer.access_token, token)
      assert.is_true(tokens.works(sandbox, token))
    end)

    it("may speak of the other half of the year, in " .. zone, function()
      local answer = tokens.pair(sandbox)
      answer.expires_in = 400 * DAY
      for _, days in ipairs({ 180, 270 }) do
        assert_agreed(zone, answer.access_token, write_in(zone, answer, days * DAY))
      end
    end)
  end

  it("is refreshed ahead of its expiry", function()
    local answer = tokens.pair(sandbox)
    write_in("America/New_York", answer, 200)
    assert.are_not.equal(answer.access_token, (ours_in("America/New_York")))
  end)

  it("keeps what the server sent", function()
    local answer = tokens.pair(sandbox)
    answer.scopes = { "a", "b" }
    answer.more = { { deep = 1.5 } }
    write_in("Europe/Berlin", answer, -1)
    ours_in("Europe/Berlin")
    local record = tokens.read(fixture.path)
    assert.are.same(answer.scopes, record.scopes)
    assert.are.same(answer.more, record.more)
  end)

  it("need have no access token that works: its refresh token counts", function()
    local answer = tokens.pair(sandbox)
    answer.access_token = nil
    write_in("UTC", answer, 3000)
    assert.is_true(tokens.works(sandbox, (ours_in("UTC"))))
  end)
end)

describe("the hour in which the clocks change", function()
  -- Python adds an hour to the reading of the clock, not to the time.
  it("adds nothing to a token's life when they go back", function()
    local zone = changing_zone("back", 30)
    local answer = tokens.pair(sandbox)
    local by_the_file = write_in(zone, answer, 3600)
    assert.is_true(by_the_file > 7000)
    local token, left = ours_in(zone)
    assert.is_true(tokens.works(sandbox, token))
    assert.is_true(left <= 3600)
  end)

  it("is in a token's life even if the clock shows it twice", function()
    -- Half an hour after it was written it was an hour earlier.
    local zone = changing_zone("back", -31)
    local answer = tokens.pair(sandbox)
    assert.is_true(write_in(zone, answer, 3600, true, 61 * 60) > 3000)
    local token = ours_in(zone)
    assert.are_not.equal(answer.access_token, token)
    assert.is_true(tokens.works(sandbox, token))
  end)

  it("counts its first round when a reading comes twice", function()
    -- In 50 minutes it is an hour earlier: the reading of 20 minutes from now
    -- comes again.
    local zone = changing_zone("back", 50)
    local answer = tokens.pair(sandbox)
    write_in(zone, answer, 1200)
    assert_served(zone, answer.access_token, 1200)
  end)

  it("takes nothing from a token's life when its reading is skipped", function()
    local zone = changing_zone("forward", 30)
    local answer = tokens.pair(sandbox)
    write_in(zone, answer, 3000)
    assert_served(zone, answer.access_token, 3000)
  end)

  it("is nothing to a file of ours", function()
    for _, way in ipairs({ "back", "forward" }) do
      local zone = changing_zone(way, 30)
      sandbox:reset()
      os.remove(fixture.path)
      local token, left = ours_in(zone)
      assert.is_true(left <= 3600 and left > 3500)
      assert_served(zone, token, 3600)
      local lines = python(READ, zone, "", fixture.path)
      assert.are.equal(lines[4], lines[3])
    end
  end)
end)

describe("a file of ours", function()
  for _, zone in ipairs(ZONES) do
    it("works in the example script, in " .. zone, function()
      local token = ours_in(zone)
      local lines = python(READ, zone, "", fixture.path)
      assert.are.equal(token, lines[1])
      assert.are.equal(sandbox:grant().refresh_token, lines[2])
      assert.are.equal(lines[4], lines[3])
    end)
  end

  it("works there after it was the script's", function()
    write_in("Europe/Berlin", tokens.pair(sandbox), -1)
    local token = ours_in("Europe/Berlin")
    assert.are.equal(token, python(READ, "Europe/Berlin", "", fixture.path)[1])
  end)

  it("works here after the script has refreshed it", function()
    ours_in("America/New_York")
    local answer = tokens.pair(sandbox)
    write_in("America/New_York", answer, 3600)
    local before = fixture:posts()
    assert_served("America/New_York", answer.access_token, 3600)
    assert.are.equal(before, fixture:posts())
  end)

  it("is not in doubt in another zone", function()
    local token = ours_in("America/New_York")
    for _, zone in ipairs({ "Asia/Tokyo", "Pacific/Honolulu", "UTC" }) do
      assert_served(zone, token, 3600)
    end
    assert.are.equal(1, fixture:posts())
  end)

  it("is read anew by a program that runs while the script rewrites it", function()
    local client = fixture:client()
    local old = assert(client:token())
    local answer = tokens.pair(sandbox)
    write_in(nil, answer, 3600)
    client:reject(old)
    assert.are.equal(answer.access_token, client:token())
  end)
end)
