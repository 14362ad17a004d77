#!/usr/bin/env bash
# Looks at the pages with a browser.  Usage: test/dashboard.sh NODE_MODULES [SCREENSHOTS]
#
# Needs node, chromium, psql, a folder with the packages of test/dashboard/package.json,
# and PGHOST, PGPORT, PGUSER and PGDATABASE of a server on which the extension is
# available, with a superuser.  Everything happens in a database of its own, which is
# dropped at the end.  Screenshots of the pages go to the second folder, if one is given.
set -euo pipefail

tests=$(cd "$(dirname "$0")/dashboard" && pwd)
modules=$(cd "${1:?NODE_MODULES}" && pwd)
screenshots=${2:+$(mkdir -p "$2" && cd "$2" && pwd)}
database=trigger_idem_dashboard_$$
monitor=trigger_idem_monitor_$$
servers=()

work=$(mktemp -d "${TMPDIR:-/tmp}/trigger_idem_dashboard.XXXXXX")

on_server() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -d "${PGDATABASE:-postgres}" "$@"
}

clean_up() {
	[ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
	wait
	on_server -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" -c "DROP ROLE IF EXISTS $monitor" 2>/dev/null || true
	rm -rf "$work"
}
trap clean_up EXIT

# start_server NAME COMMAND...: the dashboard, on a free port; its address is in $work/NAME
start_server() {
	local name=$1 deadline=$((SECONDS + 60))
	shift
	"$@" node "$work/dashboard/server.js" --port 0 --allow-host runs.example.com >"$work/$name.log" 2>&1 &
	servers+=($!)
	until grep -qs '^trigger_idem dashboard: http' "$work/$name.log"; do
		if [ $SECONDS -ge $deadline ] || ! kill -0 "${servers[-1]}" 2>/dev/null; then
			sed 's/^/# /' "$work/$name.log"
			echo "not ok - the dashboard starts"
			exit 1
		fi
		sleep 0.05
	done
	sed -n 's/^trigger_idem dashboard: //p' "$work/$name.log" >"$work/$name"
}

cp -r "$tests/../../dashboard" "$work/dashboard"
cp -r "$tests" "$work/test"
ln -s "$modules" "$work/node_modules"

on_server -c "CREATE DATABASE $database"
# the browser leaves things behind when it is not told to end
export PGDATABASE=$database HOME=$work TMPDIR=$work
psql -X -q -v ON_ERROR_STOP=1 -v monitor="$monitor" -c 'CREATE EXTENSION trigger_idem' -f "$tests/setup.sql" >"$work/setup.log"

start_server admin env
start_server monitor env PGUSER="$monitor"
ADMIN=$(cat "$work/admin") MONITOR=$(cat "$work/monitor") WORK=$work SCREENSHOTS=$screenshots \
	node "$work/test/browser.js"
