#!/usr/bin/env bash
# Measure how long pages take over many runs, and what counting costs a hit; README.md
# tells how to read it.
set -euo pipefail

usage() {
	cat <<-EOF
	Usage: ${0##*/} [-r ROUNDS] [-n RUNS]
	  -r ROUNDS  how often each is measured (default 5)
	  -n RUNS    runs in the tables (default 1000000)
	PG_CONFIG names the PostgreSQL to use.
	EOF
}

rounds=5
runs=1000000
while getopts r:n:h option; do
	case $option in
		r) rounds=$OPTARG ;;
		n) runs=$OPTARG ;;
		h) usage; exit ;;
		*) usage >&2; exit 2 ;;
	esac
done

# shellcheck disable=SC2034
server_conf="shared_buffers = 512MB
shared_preload_libraries = 'trigger_idem'"
# shellcheck source=test/bench/server.sh
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
become_postgres "$0" -r "$rounds" -n "$runs"

# Finished runs of thirty days with a key, an attempt and a step each, one in a hundred
# failed, put into the tables as they would be; and two bursts of ten thousand that are
# not worked, each triggered in one transaction.
prepare() {
	quiet_psql -v runs="$runs" >"$dir/log" <<-'EOF'
	CREATE EXTENSION trigger_idem;
	SELECT trigger_idem.task_create('task' || n, queue => 'queue' || n % 5) FROM generate_series(1, 20) n;
	INSERT INTO trigger_idem.run (run_id, created_at, run_at, key_id, idempotency_key, idempotency_key_scope, max_attempts,
		priority, environment, task_id, queue, triggered_by, payload, status, attempt, started_at, finished_at, output, error)
	SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') ||
			'8' || left(md5(n::text), 15))::uuid,
		t, t, md5('key' || n)::uuid, 'order-' || n, 'global', 3, 0, 'default', 'task' || n % 20 + 1, 'queue' || (n % 20 + 1) % 5,
		current_user, jsonb_build_object('order', n, 'text', repeat('x', 100)),
		CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END::trigger_idem.run_status, 1,
		t + interval '5 ms', t + interval '50 ms', '{"ok": true}',
		CASE WHEN n % 100 = 0 THEN '{"code": "58000", "message": "no luck"}'::jsonb END
	FROM generate_series(1, :runs) n, LATERAL (SELECT clock_timestamp() - interval '30 days' * (:runs - n) / :runs AS t) x;
	INSERT INTO trigger_idem.idempotency_key (key_id, run_id, created_at, expires_at, status, idempotency_key, environment, task_id, key, scope, triggered_by)
	SELECT key_id, run_id, created_at, created_at + interval '30 days', status, sha256(idempotency_key::bytea), environment, task_id,
		idempotency_key, 'global', triggered_by
	FROM trigger_idem.run;
	INSERT INTO trigger_idem.attempt (run_id, attempt, status, worker_id, started_at, finished_at, steps_done, steps_replayed)
	SELECT run_id, 1, status::text, 'backend 1', started_at, finished_at, 1, 0 FROM trigger_idem.run;
	INSERT INTO trigger_idem.step (run_id, step_id, attempt, started_at, finished_at, path, output)
	SELECT run_id, sha256(run_id::text::bytea), 1, started_at, finished_at, '{charge}', '1' FROM trigger_idem.run;
	SELECT count(trigger_idem.trigger_task('task1', '{}', 'found-' || n)) FROM generate_series(1, 10000) n;
	SELECT count(trigger_idem.trigger_task('task2', '{}')) FROM generate_series(1, 10000);
	VACUUM (FREEZE, ANALYZE);
	EOF
}

# measure NAME QUERY: the first call of new sessions, and a later one, in ms
measure() {
	local name=$1 query=$2 round
	: >"$dir/first"
	: >"$dir/again"
	for ((round = 0; round < rounds; round++)); do
		quiet_psql -c '\timing on' -c '\o /dev/null' -c "$query" -c "$query" |
			sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' >"$dir/times"
		sed -n 1p "$dir/times" >>"$dir/first"
		sed -n 2p "$dir/times" >>"$dir/again"
	done
	printf '%-50s %7.1f %7.1f\n' "$name" "$(median "$dir/first")" "$(median "$dir/again")"
}

# CPU time of a backend for a hit, in microseconds, in a loop
measure_hits() {
	local round
	: >"$dir/hits"
	for ((round = 0; round < rounds; round++)); do
		quiet_psql <<-'EOF' | tail -n 1 >>"$dir/hits"
		CREATE TEMPORARY TABLE stat (line text);
		DO $$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM trigger_idem.trigger_task('task1', '{}', 'found-1'); END LOOP; END $$;
		COPY stat FROM PROGRAM 'cat /proc/$PPID/stat';
		DO $$ BEGIN FOR i IN 1 .. 300000 LOOP PERFORM trigger_idem.trigger_task('task1', '{}', 'found-1'); END LOOP; END $$;
		COPY stat FROM PROGRAM 'cat /proc/$PPID/stat';
		SELECT (max(t) - min(t)) * 10000 / 300000 FROM (SELECT split_part(line, ' ', 14)::float8 + split_part(line, ' ', 15)::float8 AS t FROM stat) s;
		EOF
	done
	printf '%-50s %7.2f\n' "a hit, $1" "$(sort -g "$dir/hits" | head -n 1)"
}

start_server
prepare
run_id=$(quiet_psql -c "SELECT run_id FROM trigger_idem.run OFFSET $((runs / 2)) LIMIT 1")

printf '%s runs; ms, median of %s: the first in a session, and the next\n' "$runs" "$rounds"
measure 'runs_page()' 'SELECT trigger_idem.runs_page()'
measure 'runs_page, status' "SELECT trigger_idem.runs_page('{\"status\": \"failed\"}')"
measure 'runs_page, status of unfinished ones' "SELECT trigger_idem.runs_page('{\"status\": \"queued\"}')"
measure 'runs_page, task' "SELECT trigger_idem.runs_page('{\"task_id\": \"task7\"}')"
measure 'runs_page, key of an old run' "SELECT trigger_idem.runs_page('{\"idempotency_key\": \"order-12345\"}')"
measure 'runs_page, a day two weeks ago' "SELECT trigger_idem.runs_page(jsonb_build_object('since', now() - interval '15 days', 'until', now() - interval '14 days'))"
measure 'runs_page, older than half of them' "SELECT trigger_idem.runs_page(jsonb_build_object('before', '$run_id'))"
measure 'run_page()' "SELECT trigger_idem.run_page('$run_id')"
measure 'run_timeline()' "SELECT * FROM trigger_idem.run_timeline('$run_id')"
measure 'stats()' 'SELECT * FROM trigger_idem.stats()'

printf '\nmicroseconds of CPU, least of %s\n' "$rounds"
measure_hits counted
echo "shared_preload_libraries = ''" >>"$dir/data/postgresql.conf"
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w restart >/dev/null
measure_hits 'not counted, without preloading'
measure 'stats() from the tables' 'SELECT * FROM trigger_idem.stats()'
