#!/bin/sh
# Run once by the Postgres image on an empty volume: the gateway's login, which may do what the group emberlog_app may, and no more.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set password="$GATEWAY_PASSWORD" <<'SQL'
CREATE ROLE emberlog_app NOLOGIN;
CREATE ROLE emberlog_gateway LOGIN PASSWORD :'password' IN ROLE emberlog_app;
SQL
