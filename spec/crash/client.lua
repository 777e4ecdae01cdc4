--- A program that uses the Lua module and says what comes of it: the same as
--- client.c, which tells what its arguments mean.

local lucid = require("lucidauth")

local client = lucid.new({
  timeout = tonumber(os.getenv("TIMEOUT")) or 60,
  lock_timeout = 1,
  on_event = function(event)
    print("event " .. event.name)
  end,
})

local function print_token(token, message, code)
  if token then
    print("token " .. token)
  else
    print("failure " .. code .. " " .. message)
  end
end

local steps = {}

function steps.token()
  print_token(client:token())
end

function steps.refresh()
  print_token(client:refresh())
end

function steps.store(answer)
  local stored, message, code = client:store(answer, { replace = true })
  if stored then
    print("stored")
  else
    print_token(nil, message, code)
  end
end

function steps.status()
  local status = client:status()
  print("status " .. status.state
    .. (status.unsaved and " unsaved" or " saved")
    .. (status.shared and " shared" or " private")
    .. (status.generation % 2 == 1 and " under_way" or " settled"))
end

function steps.close()
  client:close()
end

-- Ends without closing the Lua state, so that no finalizer runs.
function steps.exit()
  os.exit(0)
end

function steps.open(path)
  local file = io.open(path)
  if file then
    file:close()
  end
end

function steps.run(command)
  io.stdout:flush()
  local done = os.execute(command)
  assert(done == true or done == 0, command)
end

for _, step in ipairs(arg) do
  local name, value = step:match("^(%w+)=?(.*)$")
  steps[name](value)
end
