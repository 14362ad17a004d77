#!/usr/bin/env bash
# Measure background workers beside graphile-worker, on one server; README.md
# tells how to read it.
set -euo pipefail

usage() {
	cat <<-EOF
	Usage: ${0##*/} [-r ROUNDS] [-j JOBS]
	  -r ROUNDS   how often each side is measured (default 3)
	  -j JOBS     how many jobs in a round (default 60000)
	PG_CONFIG names the PostgreSQL to use.  Needs node and npm, which fetches
	graphile-worker.
	EOF
}

rounds=3
jobs=60000
while getopts r:j:h option; do
	case $option in
		r) rounds=$OPTARG ;;
		j) jobs=$OPTARG ;;
		h) usage; exit ;;
		*) usage >&2; exit 2 ;;
	esac
done

server_conf="shared_buffers = 512MB
shared_preload_libraries = 'trigger_idem'
trigger_idem.databases = 'postgres'
trigger_idem.max_workers_per_database = 2
trigger_idem.worker_idle_time = '1h'
max_connections = 100"
# shellcheck source=test/bench/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
become_postgres "$0" -r "$rounds" -j "$jobs"

# ---------- graphile-worker ----------

prepare_graphile() {
	mkdir "$dir/graphile"
	cp "$source/test/bench/graphile.mjs" "$dir/graphile/"
	(cd "$dir/graphile" && HOME=$dir npm install --no-audit --no-fund graphile-worker pg) >>"$dir/log" 2>&1 ||
		{ tail -20 "$dir/log" >&2; exit 1; }
	"$bin/createdb" graphile
	(cd "$dir/graphile" && PGDATABASE=graphile npx graphile-worker --schema-only \
		-c "postgres://bench@${dir//\//%2F}:5432/graphile") >>"$dir/log" 2>&1
}

# graphile NAME ARGUMENT...: what graphile.mjs prints, into the file result.NAME
graphile() {
	local name=$1
	shift
	(cd "$dir/graphile" && PGDATABASE=graphile node graphile.mjs "$@" 2>>"$dir/log") | tail -n 1 >>"$dir/result.$name"
	quiet_psql -d graphile -c 'VACUUM ANALYZE graphile_worker._private_jobs'
}

# ---------- trigger_idem ----------

prepare_ours() {
	quiet_psql >"$dir/log" <<-'EOF'
	CREATE EXTENSION trigger_idem;
	CREATE FUNCTION noop() RETURNS void LANGUAGE sql RETURN NULL;
	CREATE TABLE started (at timestamptz DEFAULT clock_timestamp(), committed timestamptz);
	CREATE FUNCTION start(payload jsonb) RETURNS void LANGUAGE sql AS
		'INSERT INTO started (committed) VALUES (to_timestamp(($1 #>> ''{}'')::float8))';
	SELECT trigger_idem.task_create('noop', 'noop'), trigger_idem.task_create('start', 'start');
	EOF
}

# Seldom, for the look takes time from the workers; what is measured does not depend on it.
wait_until_idle() {
	while [ "$(quiet_psql -c 'SELECT count(*) FROM trigger_idem.queue_entry')" != 0 ]; do
		sleep 0.5
	done
}

# ours NAME RUNS_PER_COMMIT: runs a second of a handler that does nothing
ours() {
	quiet_psql -c "ALTER SYSTEM SET trigger_idem.runs_per_commit = $2" -c 'SELECT pg_reload_conf()' >/dev/null
	quiet_psql -c 'TRUNCATE trigger_idem.run, trigger_idem.attempt, trigger_idem.queue_entry' \
		-c "SELECT count(trigger_idem.trigger_task('noop')) FROM generate_series(1, $jobs)" \
		-c "SELECT FROM trigger_idem.trigger_task('noop')" -c "SELECT FROM trigger_idem.trigger_task('noop')" >/dev/null
	wait_until_idle
	quiet_psql -c 'SELECT count(*) / extract(epoch FROM max(finished_at) - min(started_at)) FROM trigger_idem.attempt' >>"$dir/result.$1"
}

# From the moment before the trigger to the start of the handler, milliseconds
our_latency() {
	quiet_psql -c 'TRUNCATE started' >/dev/null
	for ((i = 0; i < 500; i++)); do
		echo "SELECT FROM trigger_idem.trigger_task('start', to_jsonb(extract(epoch FROM clock_timestamp())));"
		echo 'SELECT pg_sleep(0.005);'
	done | quiet_psql >/dev/null
	wait_until_idle
	quiet_psql -F ' ' -c "SELECT round(1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM at - committed))::numeric, 3),
		round(1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM at - committed))::numeric, 3) FROM started" >>"$dir/result.our_latency"
}

# empty_claim NAME: calls a second of work() with nothing to do
empty_claim() {
	"$bin/pgbench" -n -T 2 -f <(echo 'CALL trigger_idem.work();') 2>>"$dir/log" |
		sed -n 's/^tps = \([0-9.]*\).*/\1/p' >>"$dir/result.$1"
}

start_server
prepare_ours
prepare_graphile
for ((round = 1; round <= rounds; round++)); do
	echo "round $round of $rounds" >&2
	ours ours 1
	graphile graphile rate "$jobs"
	ours ours_batched 50
	graphile graphile_batched rate "$jobs" batched
	our_latency
	graphile graphile_latency latency 500
done
quiet_psql -c 'TRUNCATE trigger_idem.run, trigger_idem.attempt'
for ((round = 1; round <= rounds; round++)); do empty_claim empty_none; done
quiet_psql <<-'EOF'
	INSERT INTO trigger_idem.run (run_id, created_at, run_at, max_attempts, priority, environment, task_id,
		queue, triggered_by, status, attempt, started_at, finished_at)
	SELECT gen_random_uuid(), now(), now(), 3, 0, 'default', 'noop', 'default', current_user, 'completed', 1, now(), now()
	FROM generate_series(1, 1000000);
	VACUUM ANALYZE trigger_idem.run;
EOF
for ((round = 1; round <= rounds; round++)); do empty_claim empty_million; done

# ---------- The table ----------

first() {
	median <(awk '{ print $1 }' "$dir/result.$1")
}

second() {
	median <(awk '{ print $2 }' "$dir/result.$1")
}

ratio() {
	awk "BEGIN { printf \"%.2f\", $1 / $2 }"
}

echo
"$bin/postgres" --version
echo "$(nproc) CPUs ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $rounds rounds of $jobs jobs"
echo
row='%-46s %12s %16s  %6s  %s\n'
# shellcheck disable=SC2059
{
	printf "$row" 'Empty handlers, runs a second' trigger_idem graphile-worker ratio ''
	printf "$row" 'a commit for each run (concurrency 24)' "$(first ours | cut -d. -f1)" "$(first graphile)" "$(ratio "$(first ours)" "$(first graphile)")" 'target 5'
	printf "$row" '50 runs a commit (its batching)' "$(first ours_batched | cut -d. -f1)" "$(first graphile_batched)" "$(ratio "$(first ours_batched)" "$(first graphile_batched)")" 'target 2'
	printf "$row" 'Commit to start of the handler, ms, p50' "$(first our_latency)" "$(first graphile_latency)" '' 'target < 0.6'
	printf "$row" 'the same, p99' "$(second our_latency)" "$(second graphile_latency)" '' 'target < 5'
	printf "$row" 'Empty claims a second' 'no runs' 'million finished' ratio ''
	printf "$row" 'CALL work() with nothing due' "$(first empty_none | cut -d. -f1)" "$(first empty_million | cut -d. -f1)" "$(ratio "$(first empty_none)" "$(first empty_million)")" 'target < 1.2'
}
