rockspec_format = "3.0"
package = "lucidauth"
version = "0.2.0-1"
source = { url = "git+https://github.com/lucidauth/lucidauth.git", tag = "v0.2.0" }
description = {
  summary = "OAuth2 access tokens for the Lucid API that always work",
  detailed = [[
    A script says lucid.token() and gets a token that works, from any number
    of threads, processes and machines at once. No crash, fault or race loses
    or double-spends the refresh token.
  ]],
  homepage = "https://github.com/lucidauth/lucidauth",
  license = "MIT",
}
supported_platforms = { "unix" }
dependencies = {
  "lua >= 5.1, < 5.5",
  "lua-cjson >= 2.1",
  -- the sandbox alone needs it; rocks know no dependencies of a part
  "luasocket >= 3.0",
}
-- CMake finds libcurl, libsodium and cJSON itself: external_dependencies does
-- not look into Debian's multiarch folders.
build = {
  type = "cmake",
  variables = {
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    LUA_INCLUDE_DIR = "$(LUA_INCDIR)",
    LUCIDAUTH_LUADIR = "$(LUADIR)",
    LUCIDAUTH_CDIR = "$(LIBDIR)",
    LUCIDAUTH_LIBRARY = "OFF",
  },
}
