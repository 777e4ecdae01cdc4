std = "lua54+luajit"
read_globals = { "ngx" }
max_line_length = 100
files["spec"] = { std = "+busted" }
files["examples/haproxy"] = { read_globals = { "core" } }
