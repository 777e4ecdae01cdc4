-- The plugins of examples/openresty/README.md, run as they stand there, inside
-- a real nginx. The few functions of Kong and APISIX that they call are stood
-- in for by nginx's own, which do the same.

local helper = require("spec.helper")
local nginx = require("spec.nginx.nginx")

local KONG = [[
  kong = {
    log = { err = function(text) ngx.log(ngx.ERR, text) end },
    request = { get_header = function(name) return ngx.req.get_headers()[name] end },
    response = { exit = function(status) return ngx.exit(status) end },
    service = {
      request = { set_header = ngx.req.set_header },
      response = { get_status = function() return tonumber(ngx.var.upstream_status) end },
    },
  }
  plugin = require("recipe")
  phases = {
    init_worker = function() plugin:init_worker() end,
    access = function() plugin:access() end,
    header_filter = function() plugin:header_filter() end,
  }
]]

local APISIX = [[
  package.loaded["apisix.core"] = {
    log = { error = function(text) ngx.log(ngx.ERR, text) end },
    request = {
      set_header = function(_, name, value) ngx.req.set_header(name, value) end,
      header = function(_, name) return ngx.req.get_headers()[name] end,
    },
  }
  plugin = require("recipe")
  phases = {
    init_worker = function() plugin.init() end,
    access = function()
      local status = plugin.access({}, {})
      if status then
        return ngx.exit(status)
      end
    end,
    header_filter = function() plugin.header_filter({}, {}) end,
  }
]]

local function recipe(name)
  local source = package.searchpath("lucidauth", package.path):match("^(.*)/[^/]*/[^/]*$")
  local text = helper.read_file(source .. "/examples/openresty/README.md")
  return assert(text:match("\n## " .. name .. "\n.-```lua\n(.-)```"), "no recipe for " .. name)
end

for name, init in pairs({ Kong = KONG, ["Apache APISIX"] = APISIX }) do
  describe("the plugin for " .. name, function()
    local fixture = nginx.fixture()

    local function start(env)
      local folder = helper.tmpdir()
      helper.run("chmod 755 " .. helper.quote(folder))
      helper.write_file(folder .. "/recipe.lua", recipe(name))
      fixture:start({
        env = env,
        init = ("package.path = %q .. package.path "):format(folder .. "/?.lua;") .. init,
        http = "init_worker_by_lua_block { phases.init_worker() }",
        server = ([[
          location / {
            access_by_lua_block { phases.access() }
            header_filter_by_lua_block { phases.header_filter() }
            proxy_pass %s;
          }
        ]]):format(fixture.sandbox.url),
      })
    end

    it("logs in, and gets another token after a 401", function()
      start()
      assert.are.equal(200, (fixture.server:get("/users/me/profile")))
      fixture.sandbox:expire()
      assert.are.equal(401, (fixture.server:get("/users/me/profile")))
      -- begun at once, for all workers
      fixture:await_posts(2)
      nginx.eventually(function()
        return fixture.server:get("/users/me/profile") == 200
      end)
      for _ = 1, 20 do
        assert.are.equal(200, (fixture.server:get("/users/me/profile")))
      end
      assert.are.equal(2, fixture:posts())
      fixture:assert_no_problems()
    end)

    it("says so when there is no token", function()
      start({ LUCID_REFRESH_TOKEN = false })
      assert.are.equal(503, (fixture.server:get("/users/me/profile")))
      fixture:assert_no_problems("There is no token yet")
      assert.is_truthy(fixture.server:log():find("env LUCID_REFRESH_TOKEN;", 1, true))
      assert.are.equal(0, fixture.sandbox:counts().api_requests)
    end)
  end)
end
