--- HTTP/1.1 as a server speaks it: requests in, answers out.

local codec = require("lucidauth.sandbox.codec")

local http = {}

local HEAD_LIMIT = 32 * 1024
local BODY_LIMIT = 1024 * 1024
local IDLE_SECONDS = 75
local REQUEST_SECONDS = 30

local REASONS = {
  [200] = "OK",
  [201] = "Created",
  [204] = "No Content",
  [301] = "Moved Permanently",
  [302] = "Found",
  [303] = "See Other",
  [307] = "Temporary Redirect",
  [308] = "Permanent Redirect",
  [400] = "Bad Request",
  [401] = "Unauthorized",
  [403] = "Forbidden",
  [404] = "Not Found",
  [405] = "Method Not Allowed",
  [408] = "Request Timeout",
  [413] = "Content Too Large",
  [415] = "Unsupported Media Type",
  [429] = "Too Many Requests",
  [431] = "Request Header Fields Too Large",
  [500] = "Internal Server Error",
  [501] = "Not Implemented",
  [502] = "Bad Gateway",
  [503] = "Service Unavailable",
  [504] = "Gateway Timeout",
  [505] = "HTTP Version Not Supported",
}

---@class lucidauth.sandbox.Request
---@field method string
---@field path string without the query, still percent-encoded
---@field query string|nil
---@field version string "1.0" or "1.1"
---@field headers table<string, string> names in lower case
---@field body string
---@field keep_alive boolean

-- Every reader below raises one of these, and http.read catches it.
local function fail(status, message)
  error({ status = status, message = message }, 0)
end

local function need(value, reason)
  if value then
    return value
  elseif reason == "limit" then
    fail(431, "the head of the request is too large")
  elseif reason == "timeout" then
    fail(408, "the request took too long to arrive")
  end
  -- Gone in the middle of a request: nobody is left to answer.
  fail(nil, reason)
end

local function read_request_line(stream)
  local line
  repeat
    line = need(stream:line(HEAD_LIMIT))
  until line ~= ""
  local method, target, version = line:match("^(%u+) (%S+) HTTP/(%d%.%d)$")
  if not method then
    fail(400, "the request line is malformed")
  elseif version ~= "1.1" and version ~= "1.0" then
    fail(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
  end
  target = target:gsub("^https?://[^/?]*", "")
  local path, query = target:match("^(/[^?#]*)%??(.*)$")
  if not path or target:find("[%c\127-\255]") then
    fail(400, "the request target is malformed")
  end
  return {
    method = method,
    path = path,
    query = query,
    version = version,
    headers = {},
  }
end

local function add_header(headers, line)
  local name, value = line:match("^([%w!#$%%&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
  if not name or value:gsub("\t", ""):find("%c") then
    fail(400, "a header line is malformed")
  end
  name = name:lower()
  local known = headers[name]
  headers[name] = known and known .. ", " .. value or value
end

local function read_headers(stream, headers)
  local room = HEAD_LIMIT
  while true do
    local line = need(stream:line(room))
    if line == "" then
      return
    end
    room = room - #line
    if room <= 0 then
      fail(431, "the head of the request is too large")
    end
    add_header(headers, line)
  end
end

local function read_chunks(stream)
  local chunks, size = {}, 0
  while true do
    local digits = need(stream:line(1024)):match("^(%x+)[ \t]*;?.*$")
    local length = digits and #digits <= 8 and tonumber(digits, 16)
    if not length then
      fail(400, "a chunk of the body is malformed")
    end
    size = size + length
    if size > BODY_LIMIT then
      fail(413, "the body is too large")
    elseif length == 0 then
      break
    end
    chunks[#chunks + 1] = need(stream:read(length))
    if need(stream:read(2)) ~= "\r\n" then
      fail(400, "a chunk of the body is malformed")
    end
  end
  read_headers(stream, {})
  return table.concat(chunks)
end

local function body_length(headers)
  local length = headers["content-length"]
  -- The same length said twice arrives as a list.
  local first = length:match("^(%d+)$") or length:match("^(%d+), %d+$")
  if not first or (length ~= first and length ~= first .. ", " .. first) then
    fail(400, "Content-Length is malformed")
  elseif #first > 8 or tonumber(first) > BODY_LIMIT then
    fail(413, "the body is too large")
  end
  return tonumber(first)
end

local function read_body(stream, request)
  local headers = request.headers
  local coding = headers["transfer-encoding"]
  if coding and headers["content-length"] then
    fail(400, "Content-Length and Transfer-Encoding exclude each other")
  elseif coding and coding:lower() ~= "chunked" then
    fail(501, "only the chunked transfer coding is known here")
  end
  local length = headers["content-length"] and body_length(headers)
  local expect = headers.expect
  if expect and expect:lower() == "100-continue" then
    stream:send("HTTP/1.1 100 Continue\r\n\r\n")
  end
  if coding then
    return read_chunks(stream)
  end
  return length and need(stream:read(length)) or ""
end

local function wants_keep_alive(request)
  local wish = (request.headers.connection or ""):lower()
  if request.version == "1.0" then
    return wish:find("keep-alive", 1, true) ~= nil
  end
  return not wish:find("close", 1, true)
end

local function read_request(stream)
  local request = read_request_line(stream)
  read_headers(stream, request.headers)
  if request.version == "1.1" and not request.headers.host then
    fail(400, "the Host header is missing")
  end
  request.body = read_body(stream, request)
  request.keep_alive = wants_keep_alive(request)
  return request
end

--- The next request of a connection.
---@param stream table
---@return lucidauth.sandbox.Request|nil request
---@return table|nil problem `status` and `message` that refuse it;
--- nil when the connection ended where it may
function http.read(stream)
  stream:allow(IDLE_SECONDS)
  if not stream:has_more() then
    return nil
  end
  stream:allow(REQUEST_SECONDS)
  local ok, result = pcall(read_request, stream)
  if ok then
    return result
  elseif type(result) ~= "table" then
    error(result, 0)
  end
  return nil, result.status and result
end

---@class lucidauth.sandbox.Answer
---@field status integer
---@field headers? table<string, string>
---@field body? string
---@field json? table the body, if it is an object
---@field form? table the body, as a form

local function body_of(answer)
  if answer.json then
    local text = codec.encode_json(answer.json)
    text = (answer.prefix or "") .. text .. (answer.suffix or "")
    return text, "application/json"
  elseif answer.form then
    return codec.encode_form(answer.form), "application/x-www-form-urlencoded"
  end
  return answer.body or "", "text/plain; charset=utf-8"
end

local function head_of(answer, default_type, keep_alive)
  local reason = REASONS[answer.status] or "Unknown"
  local lines = { ("HTTP/1.1 %d %s"):format(answer.status, reason) }
  local seen = {}
  for name, value in pairs(answer.headers or {}) do
    seen[name:lower()] = true
    if type(value) == "number" then
      value = ("%.14g"):format(value)
    end
    lines[#lines + 1] = name .. ": " .. value
  end
  if not seen["content-type"] then
    lines[#lines + 1] = "Content-Type: " .. default_type
  end
  if not seen.connection then
    lines[#lines + 1] = "Connection: "
      .. (keep_alive and "keep-alive" or "close")
  end
  return lines, seen
end

--- An answer as it goes over the wire.
---@param answer lucidauth.sandbox.Answer
---@param keep_alive boolean
---@return string head
---@return string body
function http.format(answer, keep_alive)
  local body, default_type = body_of(answer)
  local lines, seen = head_of(answer, default_type, keep_alive)
  if not seen["content-length"] and not seen["transfer-encoding"] then
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n", body
end

--- The head of an answer whose body ends with the connection.
---@param answer lucidauth.sandbox.Answer
---@return string head
function http.format_endless(answer)
  local lines = head_of(answer, "application/json", false)
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

return http
