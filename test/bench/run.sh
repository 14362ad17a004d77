#!/usr/bin/env bash
# Measure trigger_idem against hand-written SQL; README.md tells how to read it.
set -euo pipefail

usage() {
	cat <<-EOF
	Usage: ${0##*/} [-r ROUNDS] [-t SECONDS]
	  -r ROUNDS   how often each pair is measured (default 12)
	  -t SECONDS  how long each side of a pair runs in a round (default 1)
	PG_CONFIG names the PostgreSQL to use.
	EOF
}

rounds=12
seconds=1
while getopts r:t:h option; do
	case $option in
		r) rounds=$OPTARG ;;
		t) seconds=$OPTARG ;;
		h) usage; exit ;;
		*) usage >&2; exit 2 ;;
	esac
done

pg_config=${PG_CONFIG:-pg_config}
bin=$("$pg_config" --bindir)
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$(mktemp -d)

cleanup() {
	if [ -f "$dir/data/postmaster.pid" ]; then
		"$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

copy_source() {
	mkdir "$dir/source"
	tar -C "$source" --exclude=.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
		--exclude=tmp_check -cf - . | tar -C "$dir/source" -xf -
}

# The server refuses to run as root.
if [ "$(id -u)" = 0 ]; then
	copy_source
	chown -R postgres "$dir"
	runuser -u postgres -- env PG_CONFIG="$pg_config" "$dir/source/test/bench/run.sh" \
		-r "$rounds" -t "$seconds"
	exit
fi

# ---------- The server ----------

unset "${!PG@}"
export PGHOST=$dir PGPORT=5432 PGUSER=bench PGDATABASE=postgres

start_server() {
	copy_source
	make -s -C "$dir/source" PG_CONFIG="$pg_config" with_llvm=no \
		DESTDIR="$dir/install" install >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }

	"$bin/initdb" -D "$dir/data" -U bench -A trust -E UTF8 --locale=C >"$dir/log"
	cat >>"$dir/data/postgresql.conf" <<-EOF
	listen_addresses = ''
	unix_socket_directories = '$dir'
	dynamic_library_path = '$dir/install$("$pg_config" --pkglibdir):\$libdir'
	synchronous_commit = off
	shared_buffers = 256MB
	max_wal_size = 8GB
	checkpoint_timeout = 1h
	autovacuum = off
	EOF
	if [ "$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 18 ]; then
		echo "extension_control_path = '$dir/install$("$pg_config" --sharedir):\$system'"
	else
		echo "extension_destdir = '$dir/install'"
	fi >>"$dir/data/postgresql.conf"
	"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null
}

# ---------- Measuring ----------

quiet_psql() {
	"$bin/psql" -XqAt -v ON_ERROR_STOP=1 "$@"
}

# Transactions a second of one client, added to the file result.NAME
measure() {
	"$bin/pgbench" -n -M prepared -T "$seconds" -f "$source/test/bench/$1.sql" 2>>"$dir/log" |
		sed -n 's/^tps = \([0-9.]*\).*/\1/p' >>"$dir/result.$1"
}

# Sides of a comparison right after each other, in an order that alternates
compare() {
	local round=$1 side sides=()
	shift
	for side; do
		if ((round % 2)); then
			sides=("$side" "${sides[@]}")
		else
			sides+=("$side")
		fi
	done
	for side in "${sides[@]}"; do
		measure "$side"
	done
}

# Runs a second of a handler that does nothing, worked by one session
measure_noop() {
	quiet_psql -v synchronous_commit="$1" >>"$dir/result.noop_$1" <<-'EOF'
	VACUUM trigger_idem.queue_entry;
	SELECT count(trigger_idem.trigger_task('noop')) AS runs FROM generate_series(1, 3000) \gset
	SET synchronous_commit = :synchronous_commit;
	SELECT clock_timestamp() AS started \gset
	CALL trigger_idem.work('noop') \g /dev/null
	SELECT :runs / extract(epoch FROM clock_timestamp() - :'started'::timestamptz);
	EOF
}

median() {
	sort -g "$@" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

timings() {
	quiet_psql -c "SELECT us FROM bench.timing WHERE what = '$1'"
}

# The median of the ratios of the rounds, and the least and the greatest
ratios() {
	paste "$dir/result.$1" "$dir/result.$2" | awk '{ print $1 / $2 }' | sort -g >"$dir/ratios"
	printf '%6.2f  (%.2f to %.2f)' "$(median "$dir/ratios")" \
		"$(head -n 1 "$dir/ratios")" "$(tail -n 1 "$dir/ratios")"
}

print_pair() {
	printf '%-46s %12.0f %9.0f  %s  %s\n' "$1" "$(median "$dir/result.$2")" \
		"$(median "$dir/result.$3")" "$(ratios "$2" "$3")" "$4"
}

print_one() {
	printf '%-46s %12.2f  %s\n' "$1" "$2" "$3"
}

start_server
quiet_psql -f "$source/test/bench/setup.sql"
# hits before what writes, so that nothing is still being written meanwhile
for ((round = 1; round <= rounds; round++)); do
	echo "hits, round $round of $rounds" >&2
	compare "$round" taken_queued taken_select taken_completed taken_column
	quiet_psql -f "$source/test/bench/in_backend.sql"
done
for ((round = 1; round <= rounds; round++)); do
	echo "new runs, round $round of $rounds" >&2
	compare "$round" new_trigger new_insert
	for setting in off on; do
		measure_noop $setting
	done
done

echo
"$bin/postgres" --version
echo "$(nproc) CPUs ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $rounds rounds of $seconds s"
echo
printf '%-46s %12s %9s  %6s\n' 'One client, calls a second' trigger_idem 'by hand' ratio
print_pair 'new key: SELECT * FROM trigger_task()' new_trigger new_insert 'target 0.90'
print_pair 'taken key, run queued: the same' taken_queued taken_select 'target 0.75'
print_pair 'taken key, run completed: the same' taken_completed taken_select 'target 0.75'
print_pair 'taken key, run queued: SELECT trigger_task()' taken_column taken_select ''
echo
echo 'In one backend, microseconds a call'
print_one 'taken key, run queued' "$(timings bench | median)" 'target < 5'
print_one 'taken key, run completed' "$(timings completed | median)" 'target < 5'
print_one 'replayed step' "$(timings 'replayed step' | median)" 'target < 2'
print_one 'first call of a step' "$(timings 'first call of a step' | median)" ''
echo
echo 'CALL work() with empty handlers, runs a second'
print_one 'synchronous_commit = off' "$(median "$dir/result.noop_off")" ''
print_one 'synchronous_commit = on' "$(median "$dir/result.noop_on")" ''
