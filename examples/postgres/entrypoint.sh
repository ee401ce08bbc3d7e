#!/bin/sh
# Makes a database cluster in $PGDATA the first time, then becomes the server.
#
#   POSTGRES_PASSWORD  password of the superuser; needed the first time
#   POSTGRES_USER      its name (postgres)
#   POSTGRES_DB        a database to make (the user's name)
set -eu

case "${1:-postgres}" in
-*) set -- postgres "$@" ;;
esac

init() {
	user=${POSTGRES_USER:-postgres}
	if [ -z "${POSTGRES_PASSWORD:-}" ]; then
		echo "entrypoint: set POSTGRES_PASSWORD, the password of the new server's superuser" >&2
		exit 1
	fi
	pwfile=$(mktemp)
	chmod 600 "$pwfile"
	printf '%s\n' "$POSTGRES_PASSWORD" > "$pwfile"
	status=0
	initdb --username="$user" --auth=scram-sha-256 --pwfile="$pwfile" --encoding=UTF8 --no-sync > /dev/null || status=$?
	rm -f "$pwfile"
	[ "$status" = 0 ] || exit "$status"
	echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
	echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
	db=${POSTGRES_DB:-$user}
	if [ "$db" != postgres ]; then
		echo "create database \"$(printf '%s' "$db" | sed 's/"/""/g')\"" | postgres --single -j postgres > /dev/null
	fi
	sync
}

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	init
fi
unset POSTGRES_PASSWORD
exec "$@"
