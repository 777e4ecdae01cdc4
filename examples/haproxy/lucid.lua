--- Shows how HAProxy calls lucidauth: an action that adds the token, and one that tells of a
--- token that the API did not accept.

local lucid = require "lucidauth"

-- How to wait in HAProxy without holding other requests up.
lucid.configure {
  sleep = function(seconds)
    core.msleep(math.ceil(seconds * 1000))
  end,
}

-- Have a token before the first request comes.
core.register_task(function()
  lucid.token()
end)

core.register_action("add_token", { "http-req" }, function(txn)
  local authorization, message = lucid.authorization()
  if not authorization then
    txn:log(core.err, message)
    txn:done(txn:reply { status = 503, body = "no access to Lucid at the moment\n" })
    return
  end
  txn.http:req_set_header("Authorization", authorization)
  txn:set_var("txn.lucid_authorization", authorization)
end)

-- Returns at once; the next request, which is this one once more, waits for
-- another token.
core.register_action("reject_token", { "http-res" }, function(txn)
  lucid.reject(txn:get_var("txn.lucid_authorization"))
end)
