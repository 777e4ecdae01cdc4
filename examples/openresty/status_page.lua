--- Shows how accounts stand, in a page: plain HTML and inline SVG, no script,
--- no secret. Made from lucid.status(), so it works wherever that does.

local M = {}

-- Pixels that a time line has on a narrow screen; on others it has more.
local narrow = 300

local style = [[
:root { color-scheme: light dark; --back: #f4f5f7; --card: #fff; --text: #1c2430;
  --faint: #667085; --line: #e2e5ea; --good: #17915a; --warn: #b36b00; --bad: #c8322b;
  --other: #2f6fdb; --rare: #7a4fd0; --tint: #fbeeed; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --card: #1b212a; --text: #e6e9ee;
  --faint: #97a1b0; --line: #2c3541; --good: #3dbd82; --warn: #e0a33e; --bad: #f0665e;
  --other: #6ea3ff; --rare: #b196f5; --tint: #2f262b; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 720px; margin: 0 auto; }
h1 { font-size: 1.35rem; margin: 0; }
header p { margin: .1rem 0 1.5rem; color: var(--faint); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.2rem 1.4rem; margin-bottom: 1.2rem; }
h2 { font-size: 1.05rem; margin: 0; display: inline-block; }
.state { float: right; padding: .1rem .75rem; border-radius: 99px; font-weight: 600;
  font-size: .85rem; color: var(--card); background: var(--faint); }
.ready { background: var(--good); }
.expired, .due { background: var(--warn); }
.failing { background: var(--bad); }
.left { font-size: 1.7rem; font-weight: 650; margin: .5rem 0 0; letter-spacing: -.02em; }
.left small { font-size: .95rem; font-weight: 400; color: var(--faint); letter-spacing: 0; }
svg { display: block; width: 100%; margin: .4rem 0 .2rem; overflow: visible; }
svg text { font: 11px system-ui, "DejaVu Sans", sans-serif; fill: var(--faint); }
h3 { font-size: .8rem; margin: 1.1rem 0 .3rem; color: var(--faint); font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: .3rem 2rem; margin: 1rem 0 0; }
dt { font-size: .8rem; color: var(--faint); }
dd { margin: 0; font-weight: 600; }
.error { margin: 1rem 0 0; padding: .7rem .9rem; border-left: 4px solid var(--bad);
  background: var(--tint); border-radius: 4px; }
.error b { color: var(--bad); }
.unsaved { border-color: var(--warn); }
footer { color: var(--faint); font-size: .82rem; }
.key { margin-right: 1rem; white-space: nowrap; }
.key svg { display: inline; width: 14px; height: 14px; margin: 0 .35em 0 0; vertical-align: -2px; }
p, h2, dd { overflow-wrap: anywhere; }
@media (max-width: 520px) { body { padding: 1rem .5rem; } section { padding: .9rem 1rem; }
  .between { display: none; } .key { display: block; } dl { gap: .4rem 1.4rem; } }
]]

local looks = {
  refreshed = { "--good", "refreshed" },
  adopted = { "--other", "another process refreshed" },
  recovered = { "--rare", "an unfinished refresh was settled" },
  saved = { "--rare", "saved after all" },
  repaired = { "--rare", "the file's mode was mended" },
  rejected = { "--warn", "the API rejected the token" },
  refresh_failed = { "--bad", "a refresh failed" },
  save_failed = { "--bad", "the new tokens could not be saved" },
  lost = { "--bad", "a rotation was lost" },
}

local kinds = { "refreshed", "adopted", "recovered", "saved", "repaired", "rejected",
  "refresh_failed", "save_failed", "lost" }

local function escape(text)
  return (tostring(text):gsub("[&<>\"']", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;",
    ['"'] = "&quot;", ["'"] = "&#39;" }))
end

local function fill(template, values)
  return (template:gsub("%$(%l+)", function(name)
    return tostring(values[name])
  end))
end

local units = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } }

-- The two largest units: "41 min 7 s".
local function span(seconds)
  local rest, parts = math.floor(seconds + 0.5), {}
  for _, unit in ipairs(units) do
    local count = math.floor(rest / unit[1])
    if count > 0 and #parts < 2 then
      parts[#parts + 1] = count .. " " .. unit[2]
      rest = rest - count * unit[1]
    end
  end
  return parts[1] and table.concat(parts, " ") or "0 s"
end

-- Seconds ahead of the expiry, unless the option refresh_before says otherwise.
local function due_at(life)
  return math.min(300, life * 0.25)
end

-- A bar as wide as the token's life, filled as far as it has left, with a mark
-- where a refresh is due.
local function life_bar(status)
  local life = status.lifetime
  if status.expires_in == 0 or life == 0 then
    return ""
  end
  local left, due = math.min(status.expires_in / life, 1), due_at(life) / life
  local colour = left > due and "--good" or "--warn"
  return fill([[
<svg height="30" role="img" aria-label="life left: $left%">
<rect width="100%" height="14" rx="7" style="fill:var(--line)"/>
<rect width="$left%" height="14" rx="7" style="fill:var($colour)"/>
<line x1="$due%" x2="$due%" y1="0" y2="14" style="stroke:var(--card)" stroke-width="2"/>
<line x1="$due%" x2="$due%" y1="16" y2="27" style="stroke:var(--faint)"/>
<text x="$due%" dx="5" y="27">refreshed from here on</text>
<text x="100%" y="27" text-anchor="end">lifetime $life</text></svg>]], {
    left = ("%.1f"):format(left * 100),
    due = ("%.1f"):format(due * 100),
    colour = colour,
    life = span(life),
  })
end

local levels, radius = { 34, 22, 10 }, 6

-- The lowest level with room beside what stands there already, so that dots of
-- the same moment stand above each other.
local function level_for(x, taken)
  for i in ipairs(levels) do
    if not taken[i] or x - taken[i] >= 2 * radius then
      taken[i] = x
      return levels[i]
    end
  end
  return levels[#levels]
end

local failed = { refresh_failed = true, save_failed = true, lost = true }

-- A failure is told by its shape, too.
local function sign(name)
  local colour = (looks[name] or { "--faint" })[1]
  return fill([[
<circle r="$r" style="fill:var($colour);stroke:var(--card)"/>$cross]], {
    r = radius,
    colour = colour,
    cross = failed[name]
      and '<path d="M-3-3L3 3M3-3L-3 3" style="stroke:var(--card)" stroke-width="2"/>' or "",
  })
end

local function dot(x, y, event, now)
  local look = looks[event.name] or { "--faint", event.name }
  return fill([[
<svg x="$x%" y="$y"><title>$ago ago: $what</title>
<line y2="$down" style="stroke:var($colour)"/>$sign</svg>]], {
    x = ("%.1f"):format(x / narrow * 100),
    y = y,
    down = 46 - y,
    ago = span(now - event.at),
    what = look[2] .. (event.code and " (" .. event.code .. ")" or ""),
    colour = look[1],
    sign = sign(event.name),
  })
end

local function scale(range)
  local parts = {}
  for i = 0, 4 do
    parts[#parts + 1] = fill([[
<line x1="$x%" x2="$x%" y1="42" y2="50" style="stroke:var(--line)"/>
<text x="$x%" y="64" text-anchor="$anchor"$class>$when</text>]], {
      x = i * 25,
      anchor = i == 0 and "start" or i == 4 and "end" or "middle",
      class = i % 2 == 1 and ' class="between"' or "",
      when = i == 4 and "now" or span(range * (1 - i / 4)) .. " ago",
    })
  end
  return table.concat(parts)
end

local function time_line(status, now)
  local past, dots, taken = status.past, {}, {}
  if #past == 0 then
    return ""
  end
  local range = math.max((now - past[1].at) * 1.08, 20)
  for i, event in ipairs(past) do
    local x = math.min((1 - (now - event.at) / range) * narrow, narrow - radius)
    -- what stands above others is drawn before them
    dots[#past + 1 - i] = dot(x, level_for(x, taken), event, now)
  end
  return fill([[
<h3>What has happened</h3><svg height="70" role="img" aria-label="$count events">
<line x2="100%" y1="46" y2="46" style="stroke:var(--line)" stroke-width="2"/>$scale$dots
</svg>]], { count = #past, scale = scale(range), dots = table.concat(dots) })
end

local function key(status)
  local seen, parts = {}, {}
  for _, event in ipairs(status.past) do
    seen[event.name] = true
  end
  for _, name in ipairs(kinds) do
    if seen[name] then
      parts[#parts + 1] = fill([[
<span class="key"><svg viewBox="-7 -7 14 14">$sign</svg>$text</span>]],
        { sign = sign(name), text = looks[name][2] })
    end
  end
  return #parts > 0 and "<footer>" .. table.concat(parts) .. "</footer>" or ""
end

local function failures(status)
  local list = {}
  for code, count in pairs(status.failures) do
    list[#list + 1] = ("%d &times; %s"):format(count, escape(code))
  end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or "none"
end

-- The next request to the server, and when.
local function next_request(status)
  if status.retry_in then
    return { "next try", "in " .. span(status.retry_in) }
  elseif status.expires_in == 0 then
    return { "next refresh", "at the next call" }
  end
  local left = status.expires_in - due_at(status.lifetime)
  return { "next refresh", left > 0 and "in " .. span(left) or "is due" }
end

local function facts(status, now)
  local last = status.last_refresh
  local list = {
    next_request(status),
    { "last refresh by this process", last and span(now - last) .. " ago" or "none yet" },
    { "refreshes", ("%d"):format(status.refreshes) },
    { "failures", failures(status) },
    { "under way", status.generation % 2 == 1 and "a refresh" or "nothing" },
  }
  local parts = {}
  for i, fact in ipairs(list) do
    parts[i] = ("<div><dt>%s</dt><dd>%s</dd></div>"):format(fact[1], fact[2])
  end
  return "<dl>" .. table.concat(parts) .. "</dl>"
end

local function trouble(status)
  local parts = {}
  if status.unsaved then
    parts[1] = [[
<p class="error unsaved"><b>Not saved.</b> The newest tokens are in this process's memory alone: do
not kill it.</p>]]
  end
  if status.last_error then
    local again = status.retry_in
      and (" The server is asked again in %s."):format(span(status.retry_in)) or ""
    parts[#parts + 1] = ('<p class="error"><b>%s</b> %s%s</p>'):format(
      escape(status.last_error.code), escape(status.last_error.message), again)
  end
  return table.concat(parts)
end

-- Until it dies, what the next call refreshes is in use.
local function state_of(status)
  return status.state == "expired" and status.expires_in > 0 and "due" or status.state
end

local function card(name, status, now)
  return fill([[
<section id="$name"><h2>$name</h2><span class="state $state">$state</span>
<p class="left">$left</p>$bar$trouble$past$key$facts</section>]], {
    name = escape(name),
    state = state_of(status),
    left = status.expires_in > 0 and span(status.expires_in) .. " <small>left</small>"
      or "<small>There is no token that works.</small>",
    bar = life_bar(status),
    trouble = trouble(status),
    past = time_line(status, now),
    key = key(status),
    facts = facts(status, now),
  })
end

local function failed_card(name, message)
  return fill('<section id="$name"><h2>$name</h2><p class="error">$message</p></section>',
    { name = escape(name), message = escape(message) })
end

local page = [[
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Lucid tokens</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5"><link rel="icon" href="data:,"><style>$style</style></head>
<body><main><header><h1>Lucid tokens</h1><p>as process $process sees them at $time</p></header>
$cards</main></body></html>
]]

--- The page.
---@param lucid table the module, or a client made by lucid.new
---@param accounts string[] names; "default" is the default account
---@return string html
function M.render(lucid, accounts)
  local now, cards = os.time(), {}
  for i, name in ipairs(accounts) do
    local account = name ~= "default" and name or nil
    local status, message
    if lucid._VERSION then
      status, message = lucid.status(account)
    else
      status, message = lucid:status(account)
    end
    cards[i] = status and card(name, status, now) or failed_card(name, message)
  end
  return fill(page, {
    style = style,
    process = ngx.worker.pid(),
    time = os.date("%H:%M:%S", now),
    cards = table.concat(cards, "\n"),
  })
end

return M
