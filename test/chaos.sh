#!/usr/bin/env bash
# Chaos: see test/chaos/run.py.
#
#	test/chaos.sh [--seconds N] [--seed N] [--clients N]
#	test/chaos.sh --release ...		on the machine's PostgreSQL 15, which is faster
#
# Two minutes if no other time is given, on the server with assertions, which meets
# memory that was freed where another would go on.  As root the database is in a
# small file system of its own, which is filled now and then; where that cannot be
# mounted it says so.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"
# shellcheck source=test/servers.sh
. "$checkout/test/servers.sh"

small_size=500m

# The mount goes with this process: it has a mount namespace of its own.
if [ "$(id -u)" -eq 0 ] && [ -z "${TRIGGER_IDEM_UNSHARED:-}" ] && unshare --mount true 2>/dev/null; then
	TRIGGER_IDEM_UNSHARED=1 exec unshare --mount "$0" "$@"
fi

test_chaos() {
	local status=0 small=()
	mkdir "$work/small"
	if [ -n "${TRIGGER_IDEM_UNSHARED:-}" ] && mount -t tmpfs -o "size=$small_size" tmpfs "$work/small"; then
		mkdir "$work/small/tablespace"
		give "$work/small"
		run_psql -d postgres -c "CREATE TABLESPACE small LOCATION '$work/small/tablespace'"
		run_psql -d postgres -c 'CREATE DATABASE chaos TABLESPACE small'
		small=(--small "$work/small")
	else
		echo "no tablespace is filled: there is no right to mount one"
		run_psql -d postgres -c 'CREATE DATABASE chaos'
	fi
	run_psql -d chaos -f "$source/test/chaos/setup.sql" >/dev/null
	as_user env PGHOST="$socket" PGUSER=postgres PYTHONDONTWRITEBYTECODE=1 \
		/usr/bin/python3 "$source/test/chaos/run.py" --data "$work/data" --bin "$pg_bin" "${small[@]}" "$@" \
		>"$log/chaos" 2>&1 || status=$?
	cat "$log/chaos"
	count_tests "$log/chaos" "$status" '^ok ' '^not ok '
	# the monkey's SIGKILL is no crash, and what a full disk does to the server's own
	# file is no internal error
	check "no internal error, failed assertion or crash" \
		log_is_clean 'by signal ([^9]|9[^:])' 'FATAL:  could not write init file'
}

need_packages postgresql-15 postgresql-server-dev-15 make gcc libc6-dev python3 python3-psycopg2 gdb
make_workplace
trap 'stop_server || true; ! mountpoint -q "$work/small" || umount "$work/small"; clean_up' EXIT
if [ "${1:-}" = --release ]; then
	shift
	use_server 15 /usr/lib/postgresql/15/bin
	install_build COPT="-Werror -g -DUSE_ASSERT_CHECKING"
else
	use_assertion_server
	install_build COPT="-Werror -g"
fi
cat >>"$work/server.conf" <<-CONF
	shared_preload_libraries = 'trigger_idem'
	trigger_idem.databases = 'chaos'
	trigger_idem.poll_interval = '500ms'
	trigger_idem.max_workers = 4
	max_worker_processes = 16
	max_wal_size = '256MB'
	checkpoint_timeout = '30s'
	lock_timeout = '30s'
	autovacuum_naptime = '1s'
	autovacuum_vacuum_scale_factor = 0
	autovacuum_analyze_scale_factor = 0
CONF
# pg_ctl start of the monkey has no options
cat >>"$work/server.conf" <<-CONF
	listen_addresses = ''
	unix_socket_directories = '$socket'
	log_min_messages = warning
	log_line_prefix = '%m [%p] %e '
CONF
start_server
step "chaos" 15 test_chaos "$@"
finish
