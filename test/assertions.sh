#!/usr/bin/env bash
# The suites on a PostgreSQL 15 of our own, built from Debian's source.
#
#	test/assertions.sh			regression, isolation and TAP suites with its
#						assertions on, the extension with gcc's undefined
#						behaviour sanitiser
#	test/assertions.sh valgrind	the regression suite, the server under valgrind, which
#						takes half an hour
#	test/assertions.sh valgrind FILE...	or some of its files, as CI does
#
# The server is kept (see test/README.md).  The last line is "N passed, N failed".
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"
# shellcheck source=test/servers.sh
. "$checkout/test/servers.sh"

# ---------- Assertions ----------

is_defined() {
	! grep 'runtime error' "$work/data/server.log"
}

test_assertions_log() {
	check "there is no undefined behaviour" is_defined
	test_server_log
}

# All that need nothing but what comes with the server
test_tap_assertions() {
	local files
	mapfile -t files < <(grep -L "shared_preload_libraries = 'pg_cron" "$source"/test/tap/*.pl)
	test_tap "${files[@]}"
}

# Also what a write of our memory after its end, and reading what was never
# written, leave behind: such a server fills both with patterns.
run_assertions() {
	make_workplace
	use_assertion_server
	# -fno-sanitize-recover would end the server; reports in its log name the line
	install_build PG_CFLAGS="-fsanitize=undefined -g" SHLIB_LINK=-fsanitize=undefined
	start_server
	step "assertions: regression suite" 15 test_regress
	step "assertions: isolation specs" 15 test_isolation
	step "assertions: server log" 15 test_assertions_log
	step "assertions: TAP tests" 15 test_tap_assertions
}

# ---------- valgrind ----------

# As pg_ctl start, but under valgrind
start_under_valgrind() {
	mkdir "$work/valgrind"
	give "$work/valgrind"
	as_user "$pg_bin/initdb" -D "$work/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 -N >/dev/null
	as_user tee -a "$work/data/postgresql.conf" <"$work/server.conf" >/dev/null
	as_user valgrind --quiet --vgdb=no --leak-check=no --trace-children=yes \
		--gen-suppressions=all --suppressions="$work/server/valgrind.supp" \
		--log-file="$work/valgrind/%p.log" \
		"$pg_bin/postgres" -D "$work/data" -c listen_addresses='' -c unix_socket_directories="$socket" \
		-c log_min_messages=warning -c log_line_prefix='%m [%p] %e ' -c max_prepared_transactions=10 \
		-c deadlock_timeout=10s >"$work/data/server.log" 2>&1 &
	for _ in $(seq 600); do
		! as_user "$pg_bin/pg_isready" -q -h "$socket" || return 0
		sleep 0.1
	done
	echo "the server under valgrind does not come up"
	return 1
}

# Any error is ours: the server's own tests are without.  Each process has a log.
valgrind_is_content() {
	[ "$(find "$work/valgrind" -name '*.log' | wc -l)" -gt 20 ] || return 1
	! cat "$work"/valgrind/*.log | grep . | head -n 100
}

# test_valgrind [FILE]...
test_valgrind() {
	start_under_valgrind
	if [ "$#" -gt 0 ]; then
		run_regress regress regress/pg_regress setup "$@" -- --inputdir="$source" --load-extension=trigger_idem
	else
		test_regress
	fi
	stop_server fast
	check "valgrind has found no error" valgrind_is_content
}

run_valgrind() {
	make_workplace
	use_assertion_server
	install_build COPT=-Werror PG_CFLAGS="-g -DUSE_VALGRIND"
	step "valgrind: regression suite" 15 test_valgrind "$@"
}

case ${1:-assertions} in
assertions) run_assertions ;;
valgrind)
	shift
	run_valgrind "$@"
	;;
*)
	echo "usage: test/assertions.sh [valgrind [FILE]...]" >&2
	exit 2
	;;
esac
finish
