--- The login page that a browser sees.

local sorted_keys = require("lucidauth.tables").sorted_keys

local pages = {}

local LAYOUT = [[
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; background: #f3f4f7;
    color: #23262f; margin: 0; display: grid; place-items: center;
    min-height: 100vh }
  main { background: #fff; border-radius: 12px; padding: 32px 40px;
    max-width: 26rem; box-shadow: 0 4px 24px #0002 }
  h1 { font-size: 1.3rem; margin-top: 0 }
  code { background: #f3f4f7; border-radius: 4px; padding: 1px 5px }
  button { font: inherit; padding: 8px 24px; border-radius: 8px;
    border: 1px solid #b8bcc8; background: #fff; cursor: pointer }
  button[value=allow] { background: #2f5fe0; border-color: #2f5fe0;
    color: #fff; margin-right: 8px }
  small { color: #6a6f7d }
</style>
<main>
%s
</main>
</html>
]]

local ENTITIES = {
  ["&"] = "&amp;",
  ["<"] = "&lt;",
  [">"] = "&gt;",
  ['"'] = "&quot;",
  ["'"] = "&#39;",
}

local function escape(text)
  return (text:gsub("[&<>\"']", ENTITIES))
end

local function page(status, title, content)
  return {
    status = status,
    headers = {
      ["Content-Type"] = "text/html; charset=utf-8",
      ["Content-Security-Policy"] = "default-src 'none'; "
        .. "style-src 'unsafe-inline'; frame-ancestors 'none'",
      ["Cache-Control"] = "no-store",
    },
    body = LAYOUT:format(escape(title), content),
  }
end

local function hidden_inputs(fields)
  local lines = {}
  for i, name in ipairs(sorted_keys(fields)) do
    lines[i] = ('<input type="hidden" name="%s" value="%s">'):format(
      escape(name),
      escape(fields[name])
    )
  end
  return table.concat(lines, "\n")
end

local function scope_items(scope)
  local items = {}
  for name in scope:gmatch("%S+") do
    items[#items + 1] = "<li><code>" .. escape(name) .. "</code></li>"
  end
  return table.concat(items, "\n")
end

--- Asks the user to allow or deny.
---@param path string where the form goes
---@param fields table<string, string> the authorization request
---@param kind "user"|"account"
---@return table answer
function pages.consent(path, fields, kind)
  local whom = kind == "account" and "your whole account" or "you"
  local content = ([[
<h1>Allow <code>%s</code> to act for %s?</h1>
<p>It asks for:</p>
<ul>
%s
</ul>
<form method="post" action="%s">
%s
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form>
<p><small>This is the lucidauth sandbox: no real account is touched.</small></p>
]]):format(
    escape(fields.client_id),
    whom,
    scope_items(fields.scope),
    escape(path),
    hidden_inputs(fields)
  )
  return page(200, "Lucid sandbox", content)
end

--- Tells the user why the login cannot go on.
---@param message string
---@return table answer
function pages.problem(message)
  return page(400, "Lucid sandbox", "<h1>This login cannot go on</h1>\n<p>"
    .. escape(message) .. "</p>")
end

return pages
