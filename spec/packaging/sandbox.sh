# Sourced by the tests of this folder.

# start_sandbox <interpreter>: starts a sandbox that ends when descriptor 3 is closed, and exports the settings that it
# tells. Leaves two fifos in the current folder.
start_sandbox() {
  mkfifo commands answers
  "$1" -e 'require("lucidauth.sandbox").main(arg)' -- --port 0 --until-stdin-closes <commands >answers &
  exec 3>commands 4<answers
  unset LUCID_API_URL
  while read -r line <&4; do
    case $line in
      export\ LUCID_*=*) export "${line#export }" ;;
      *log*) break ;;
    esac
  done
  [ -n "${LUCID_API_URL:-}" ] || fail "the sandbox did not start"
}

stop_sandbox() {
  exec 3>&- 4<&-
  wait
}

no_settings() {
  unset LUCID_CLIENT_ID LUCID_CLIENT_SECRET LUCID_REFRESH_TOKEN LUCID_TOKEN_FILE LUCID_API_URL
}
