#!/usr/bin/env bash
# Measure trigger_idem against hand-written SQL; README.md tells how to read it.
set -euo pipefail

usage() {
	cat <<-EOF
	Usage: ${0##*/} [-r ROUNDS] [-t SECONDS] [-k KEYS]
	  -r ROUNDS   how often each pair is measured (default 12)
	  -t SECONDS  how long each side of a pair runs in a round (default 1)
	  -k KEYS     how many live keys to grow to (default 1000000; ten million
	              take 4 GB of disk and of memory, and 5 minutes)
	PG_CONFIG names the PostgreSQL to use.
	EOF
}

rounds=12
seconds=1
keys=1000000
while getopts r:t:k:h option; do
	case $option in
		r) rounds=$OPTARG ;;
		t) seconds=$OPTARG ;;
		k) keys=$OPTARG ;;
		h) usage; exit ;;
		*) usage >&2; exit 2 ;;
	esac
done

server_conf="shared_buffers = $((256 + keys / 2500))MB
max_connections = 100"
# shellcheck source=test/bench/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
become_postgres "$0" -r "$rounds" -t "$seconds" -k "$keys"

# ---------- Measuring ----------

# measure NAME [PGBENCH OPTION...]: transactions a second of one client, or as
# many as the options say, added to the file result.NAME
measure() {
	local name=$1
	shift
	"$bin/pgbench" -n -M prepared -T "$seconds" -f "$source/test/bench/$name.sql" "$@" 2>>"$dir/log" |
		sed -n 's/^tps = \([0-9.]*\).*/\1/p' >>"$dir/result.$name"
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

# Both sides trigger a batch of 10,000 new keys; microseconds an item
measure_batches() {
	quiet_psql -v round="$1" -f "$source/test/bench/batch.sql"
}

# measure_growth KEYS: rates with so many keys that are live, in files
# result.grown_*.KEYS.  One long session each, which first touches all pages:
# a new one would measure the kernel giving it its view of shared memory.
measure_growth() {
	local side
	quiet_psql -v keys="$1" -f "$source/test/bench/grow.sql"
	for side in grown_taken grown_new; do
		"$bin/pgbench" -n -M prepared -P "$seconds" -T "$(((rounds + 5) * seconds + $1 / 1000000))" \
			-D keys="$1" -D warm=0 -f "$source/test/bench/$side.sql" 2>&1 >>"$dir/log" |
			sed -n 's/^progress: .* s, \([0-9.]*\) tps.*/\1/p' | tail -n "$rounds" >"$dir/result.$side.$1"
	done
}

timings() {
	quiet_psql -c "SELECT us FROM bench.timing WHERE what = '$1' ORDER BY at"
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

for ((round = 1; round <= rounds; round++)); do
	echo "contention and batches, round $round of $rounds" >&2
	measure contended -c 64 -j 2
	measure uncontended -c 64 -j 2
	measure_batches "$round"
done
made_of_one_key=$(quiet_psql -c "SELECT count(*) FROM trigger_idem.run WHERE idempotency_key = 'contended'")
quiet_psql -f "$source/test/bench/size.sql"
sizes=(10000)
for ((size = 1000000; size <= keys; size *= 10)); do
	sizes+=("$size")
done
for size in "${sizes[@]}"; do
	echo "with $size live keys" >&2
	measure_growth "$size"
done

# ---------- The table ----------

print_size() {
	printf '%-46s %12s %9s\n' "$1" "$(timings "$2: disk" | median)" "$(timings "$2: WAL" | median)"
}

print_batch() {
	timings 'batch' >"$dir/result.batch_us"
	timings "$2" >"$dir/result.by_hand_us"
	printf '%-46s %12.2f %9.2f  %s  target 1.00\n' "$1" "$(median "$dir/result.batch_us")" \
		"$(median "$dir/result.by_hand_us")" "$(ratios by_hand_us batch_us)"
}

echo
"$bin/postgres" --version
echo "$(nproc) CPUs ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $rounds rounds of $seconds s"
echo
printf '%-46s %12s %9s  %6s\n' 'One client, calls a second' trigger_idem 'by hand' ratio
print_pair 'new key: SELECT * FROM trigger_task()' new_trigger new_insert 'target 1.00'
print_pair 'taken key, run queued: the same' taken_queued taken_select 'target 0.85'
print_pair 'taken key, run completed: the same' taken_completed taken_select 'target 0.85'
print_pair 'taken key, run queued: SELECT trigger_task()' taken_column taken_select ''
echo
printf '%-46s %12s %9s  %6s\n' '64 clients, calls a second' 'one key' '10,000' ratio
print_pair 'taken keys, runs queued: SELECT * FROM' contended uncontended ''
echo "runs made of the one key: $made_of_one_key"
echo
printf '%-46s %12s %9s  %6s\n' 'Batches of 10,000 new keys, microseconds an item' trigger_idem 'by hand' ratio
print_batch 'batch_trigger_task(), INSERT .. SELECT of JSON' 'batch by hand'
print_batch 'the same, INSERT .. SELECT of rows' 'batch by hand of rows'
echo
printf '%-46s %12s %9s\n' 'With so many live keys, calls a second' 'taken key' 'new key'
for size in "${sizes[@]}"; do
	printf '%-46s %12.0f %9.0f\n' "$size" "$(median "$dir/result.grown_taken.$size")" \
		"$(median "$dir/result.grown_new.$size")"
done
printf '%-46s %12s %9s  target 0.80\n' "the last against the first" \
	"$(awk "BEGIN { printf \"%.2f\", $(median "$dir/result.grown_taken.${sizes[-1]}") / $(median "$dir/result.grown_taken.10000") }")" \
	"$(awk "BEGIN { printf \"%.2f\", $(median "$dir/result.grown_new.${sizes[-1]}") / $(median "$dir/result.grown_new.10000") }")"
echo
printf '%-46s %12s %9s\n' 'Bytes' disk WAL
print_size 'a run without a key and payload, queued' 'run'
print_size 'what a key adds to it' 'key'
print_size 'what a payload of 128 bytes adds to it' 'payload'
print_size 'from queued to completed' 'completion'
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
