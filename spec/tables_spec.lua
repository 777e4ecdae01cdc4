-- Text from outside, as logs and metrics show it.

local tables = require("lucidauth.tables")

it("text from outside forges no line and drives no terminal", function()
  for text, shown in pairs({
    ["anna"] = "anna",
    ["M\195\188ller \240\159\152\128"] = "M\195\188ller \240\159\152\128",
    ["a\nb\r\27[31m\127\0"] = "a\\nb\\x0d\\x1b[31m\\x7f\\x00",
    ["\194\133\194\155\194\173"] = "\\u0085\\u009b\\u00ad",
    ["\226\128\174\226\129\166\239\187\191\226\128\139"] = "\\u202e\\u2066\\ufeff\\u200b",
    ["a\\nb"] = "a\\nb",
  }) do
    assert.are.equal(shown, tables.printable(text))
  end
end)
