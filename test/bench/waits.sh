#!/usr/bin/env bash
# Measure what waiting costs beside plain runs, on one server; README.md tells how
# to read it.
set -euo pipefail

usage() {
	cat <<-EOF
	Usage: ${0##*/} [-r ROUNDS] [-p PARENTS] [-s SLEEPERS]
	  -r ROUNDS     how often each is measured (default 3)
	  -p PARENTS    parents that wait for a child each (default 10000)
	  -s SLEEPERS   runs that sleep while claims find nothing (default 100000)
	PG_CONFIG names the PostgreSQL to use.
	EOF
}

rounds=3
parents=10000
sleepers=100000
while getopts r:p:s:h option; do
	case $option in
		r) rounds=$OPTARG ;;
		p) parents=$OPTARG ;;
		s) sleepers=$OPTARG ;;
		h) usage; exit ;;
		*) usage >&2; exit 2 ;;
	esac
done

# shellcheck disable=SC2034
server_conf="shared_buffers = 512MB
shared_preload_libraries = 'trigger_idem'
trigger_idem.databases = 'postgres'
trigger_idem.max_workers_per_database = 2
trigger_idem.worker_idle_time = '1h'
max_connections = 100"
# shellcheck source=test/bench/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
become_postgres "$0" -r "$rounds" -p "$parents" -s "$sleepers"

prepare() {
	quiet_psql >"$dir/log" <<-'EOF'
	CREATE EXTENSION trigger_idem;
	CREATE FUNCTION noop() RETURNS void LANGUAGE sql RETURN NULL;
	CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM trigger_idem.trigger_task_and_wait('noop');
	END $$;
	CREATE TABLE resumed (ms float8);
	CREATE FUNCTION resumes() RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		child uuid;
	BEGIN
		SELECT run_id INTO child FROM trigger_idem.trigger_task_and_wait('noop');
		INSERT INTO resumed SELECT 1000 * extract(epoch FROM clock_timestamp() - finished_at)
		FROM trigger_idem.runs WHERE run_id = child;
	END $$;
	CREATE FUNCTION sleeps() RETURNS timestamptz LANGUAGE sql AS $$ SELECT trigger_idem.wait_for('sleep', '1 day') $$;
	SELECT trigger_idem.task_create(name, name::regproc) FROM unnest('{noop,waits,resumes,sleeps}'::text[]) name;
	EOF
}

clear() {
	quiet_psql -c 'TRUNCATE trigger_idem.run, trigger_idem.attempt, trigger_idem.queue_entry,
		trigger_idem.wait, trigger_idem.awaited, trigger_idem.idempotency_key'
}

# Seldom, for the look takes time from the workers; what is measured does not depend on it.
wait_until_idle() {
	while [ "$(quiet_psql -c "SELECT count(*) FROM trigger_idem.queue_entry WHERE task_id <> 'sleeps'")" != 0 ]; do
		sleep 0.5
	done
}

# seconds NAME TASK RUNS: from the first start to the last end of all runs
seconds() {
	clear
	quiet_psql -c "SELECT count(trigger_idem.trigger_task('$2')) FROM generate_series(1, $3)" >/dev/null
	wait_until_idle
	quiet_psql -c 'SELECT extract(epoch FROM max(finished_at) - min(started_at)) FROM trigger_idem.attempt' >>"$dir/result.$1"
}

# From the end of the child, just before its commit, to the parent's handler going on
latency() {
	clear
	quiet_psql -c 'TRUNCATE resumed'
	for ((i = 0; i < 300; i++)); do
		echo "SELECT FROM trigger_idem.trigger_task('resumes');"
		echo 'SELECT pg_sleep(0.01);'
	done | quiet_psql >/dev/null
	wait_until_idle
	quiet_psql -F ' ' -c "SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 3),
		round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 3) FROM resumed" >>"$dir/result.latency"
}

# empty_claim NAME: calls a second of work() with nothing to do
empty_claim() {
	"$bin/pgbench" -n -T 2 -f <(echo 'CALL trigger_idem.work();') 2>>"$dir/log" |
		sed -n 's/^tps = \([0-9.]*\).*/\1/p' >>"$dir/result.$1"
}

# sleepers_sleep RUNS: so many more runs sleep
sleepers_sleep() {
	local all
	all=$(quiet_psql -c "SELECT count(trigger_idem.trigger_task('sleeps')) FROM generate_series(1, $1)" \
		-c 'SELECT count(*) FROM trigger_idem.queue_entry' | tail -n 1)
	while [ "$(quiet_psql -c 'SELECT count(*) FROM trigger_idem.wait')" != "$all" ]; do sleep 0.1; done
	quiet_psql -c 'VACUUM ANALYZE trigger_idem.queue_entry'
}

start_server
prepare
for ((round = 1; round <= rounds; round++)); do
	echo "round $round of $rounds" >&2
	seconds plain noop $((2 * parents))
	seconds waits waits "$parents"
	latency
done
clear
for ((round = 1; round <= rounds; round++)); do empty_claim empty_none; done
sleepers_sleep 1
for ((round = 1; round <= rounds; round++)); do empty_claim empty_one; done
sleepers_sleep $((sleepers - 1))
for ((round = 1; round <= rounds; round++)); do empty_claim empty_sleepers; done

first() {
	median <(awk '{ print $1 }' "$dir/result.$1")
}

ratio() {
	awk "BEGIN { printf \"%.2f\", $1 / $2 }"
}

echo
"$bin/postgres" --version
echo "$(nproc) CPUs ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $rounds rounds"
echo
row='%-50s %12s %12s  %6s  %s\n'
# shellcheck disable=SC2059
{
	printf "$row" 'Seconds' "$((2 * parents)) runs" "$parents waits" ratio ''
	printf "$row" 'plain runs; parents that wait for a child each' "$(first plain)" "$(first waits)" "$(ratio "$(first waits)" "$(first plain)")" 'target 3'
	printf "$row" 'Milliseconds' p50 p99 '' ''
	printf "$row" "end of the child to its parent going on" "$(first latency)" "$(median <(awk '{ print $2 }' "$dir/result.latency"))" '' 'target 2 (p50)'
	printf "$row" 'Empty claims a second' '1 sleeps' "$sleepers sleep" ratio ''
	printf "$row" 'CALL work() with nothing due' "$(first empty_one | cut -d. -f1)" "$(first empty_sleepers | cut -d. -f1)" "$(ratio "$(first empty_one)" "$(first empty_sleepers)")" 'target 1'
	printf "$row" 'the same, and without any run in the queue' "$(first empty_none | cut -d. -f1)" '' '' ''
}
