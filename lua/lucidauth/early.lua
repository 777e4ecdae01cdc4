--- Loads all that lucidauth loads later elsewhere, libcurl and libsodium too: for
--- a program that gives up its rights, or goes into a chroot, before it needs a
--- token. Raises when a part cannot be loaded, naming it and the remedy.

require "lucidauth"
require("lucidauth.module").load_rest()

local digest, message = require("lucidauth.core").sha256("")
if not digest then
  error(message, 0)
end

return true
