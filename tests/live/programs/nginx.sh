#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# An nginx with one worker, on the port that the client chose.
cat >"$1/nginx.conf" <<CONF
daemon off;
user root;
worker_processes 1;
pid $1/nginx.pid;
error_log $1/nginx.log;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path $1/body;
  proxy_temp_path $1/proxy;
  fastcgi_temp_path $1/fastcgi;
  uwsgi_temp_path $1/uwsgi;
  scgi_temp_path $1/scgi;
  keepalive_timeout 1000;
  server { listen $(cat "$1/outside-port"); location / { return 204; } }
}
CONF
exec nginx -c "$1/nginx.conf"
