#!/usr/bin/env bash
# What applications call, through PgBouncer in transaction mode: each transaction
# may be on another connection to the server, and is here.  Usage: test/poolers.sh
#
# The scenarios of all workers (test/tap/013_conformance.pl) have an application
# behind PgBouncer too; they run with the other TAP tests.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"

pooler_port=6543

# In turn, so that no two transactions of a client come to the same connection
# while there are others
start_pooler() {
	cat >"$work/pgbouncer.ini" <<-INI
		[databases]
		* = host=$socket
		[pgbouncer]
		listen_addr =
		unix_socket_dir = $socket
		listen_port = $pooler_port
		pool_mode = transaction
		default_pool_size = 4
		min_pool_size = 4
		server_round_robin = 1
		auth_type = trust
		auth_file = $work/users
		ignore_startup_parameters = extra_float_digits, options
		logfile = $log/pgbouncer
		pidfile = $work/pgbouncer.pid
	INI
	echo '"postgres" ""' >"$work/users"
	give "$work/pgbouncer.ini" "$work/users"
	as_user /usr/sbin/pgbouncer -q -d "$work/pgbouncer.ini" >/dev/null 2>&1
	for _ in $(seq 100); do
		! as_user "$pg_bin/pg_isready" -q -h "$socket" -p "$pooler_port" || return 0
		sleep 0.1
	done
	echo "PgBouncer does not come up" >&2
	return 1
}

stop_pooler() {
	[ ! -e "$work/pgbouncer.pid" ] || kill "$(cat "$work/pgbouncer.pid")" || true
}

# Backends that a client meets in a row of transactions
meets_many() {
	local pids
	pids=$(for _ in $(seq 8); do echo 'SELECT pg_backend_pid();'; done |
		as_user "$pg_bin/psql" -X -q -At -h "$socket" -p "$pooler_port" -U postgres -d model | sort -u | wc -l)
	[ "$pids" -gt 1 ]
}

test_model() {
	local status=0
	run_psql -d postgres -c 'CREATE DATABASE model'
	run_psql -d model -f "$source/test/model/setup.sql" >/dev/null
	# four clients at a time have all connections of the pool opened
	for _ in 1 2 3 4; do
		PGPORT=$pooler_port run_psql -d model -c 'SELECT pg_sleep(0.3)' >/dev/null &
	done
	wait
	check "the transactions of a client come to several connections" meets_many
	as_user env PGHOST="$socket" PGPORT=$pooler_port PGUSER=postgres PGDATABASE=model PYTHONDONTWRITEBYTECODE=1 \
		/usr/bin/python3 "$source/test/model/run.py" --sequences 200 --pooled >"$log/model" 2>&1 || status=$?
	cat "$log/model"
	count_tests "$log/model" "$status" '^ok ' '^not ok '
}

# The regression suite's files of what applications call, each transaction by another
# session; what they set is set in transactions.  Left out are files that need one session:
# PostgreSQL's isolation tester could not tell who waits, either, for a pooler's
# clients have no process id.
pooled_files=(application batch control environment key page payload progress prune reset schedule
	stats step task timeline trigger)

test_pooled_regress() {
	local file
	mkdir -p "$work/pooled_suite/sql" "$work/pooled_suite/expected"
	for file in setup "${pooled_files[@]}"; do
		awk -f "$source/test/poolers/local_settings.awk" "$source/sql/$file.sql" >"$work/pooled_suite/sql/$file.sql"
		awk -f "$source/test/poolers/local_settings.awk" "$source/expected/$file.out" >"$work/pooled_suite/expected/$file.out"
	done
	give "$work/pooled_suite"
	make_regression_database pooled
	run_psql -d pooled -c 'CREATE EXTENSION trigger_idem'
	run_regress pooled regress/pg_regress setup "${pooled_files[@]}" -- \
		--inputdir="$work/pooled_suite" --use-existing --dbname=pooled --port=$pooler_port
}

test_pooled_examples() {
	# what listens needs a connection of its own
	LISTEN_PORT=5432 PGPORT=$pooler_port test_examples
}

node_packages=()
command -v npm >/dev/null || node_packages=(nodejs node-pg)
need_packages postgresql-15 postgresql-server-dev-15 postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl \
	make gcc libc6-dev python3 python3-psycopg2 pgbouncer "${node_packages[@]}"
make_workplace
trap 'stop_pooler; clean_up' EXIT
use_server 15 /usr/lib/postgresql/15/bin
install_build COPT="-Werror -DUSE_ASSERT_CHECKING"
server_options='-c synchronous_commit=off' start_server
start_pooler
step "PgBouncer: regression suite" 15 test_pooled_regress
PGPORT=$pooler_port step "PgBouncer: pgTAP" 15 test_pgtap
step "PgBouncer: model of the state machine" 15 test_model
step "PgBouncer: examples of applications" 15 test_pooled_examples
test_server_log
finish
