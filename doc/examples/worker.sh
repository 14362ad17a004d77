#!/usr/bin/env bash
# Works the runs of the queue "orders", one at a time: worker.sh [--stop-when-idle]
# Where the database is comes from PGHOST, PGDATABASE and so on. Needs psql only.
set -euo pipefail

queue=orders
worker="$(hostname) $$"
poll_seconds=${POLL_SECONDS:-5}

sql() {
	psql -X -q -A -t -F $'\t' -v ON_ERROR_STOP=1 "$@"
}

# Keep the lease of the run in hand, until it is lost or this worker is gone. Like
# sleep, read waits, but it is no process that outlives us.
heartbeats() {
	while kill -0 $$; do
		read -r -t "$1" <> <(:) || true
		sql -v run="$run" -v attempt="$attempt" <<<"SELECT trigger_idem.run_heartbeat(:'run', :attempt)" || return
	done >/dev/null 2>&1
}

# A step around a call to the outside, and one transaction for what is ours. A real
# call would be something like  \set charge `curl -H "Idempotency-Key: $key" ...`
work() {
	sql -v run="$run" -v attempt="$attempt" -v order="$order" <<'SQL'
SELECT is_cached, output #>> '{}' AS charge, idempotency_key
FROM trigger_idem.run_once_begin(:'run', :attempt, 'charge') \gset
\if :is_cached
\else
	SELECT pay(:'idempotency_key', :'order') AS charge \gset
	SELECT trigger_idem.run_once_end(:'run', :attempt, 'charge', to_jsonb(:'charge'::text));
\endif

BEGIN;
SELECT trigger_idem.run_enter(:'run', :attempt);
INSERT INTO booking VALUES (:'order', :'charge', trigger_idem.current_run_id());
SELECT trigger_idem.run_complete(:'run', :attempt, jsonb_build_object('charge', :'charge'::text));
COMMIT;
SQL
}

# This has no effect if the run is not ours any more.
fail() {
	sql -v run="$run" -v attempt="$attempt" -v error="$1" <<-'SQL'
		SELECT trigger_idem.run_fail(:'run', :attempt, jsonb_build_object('message', :'error'::text));
	SQL
}

stopped=
trap 'stopped=yes' TERM      # the run in hand is finished first

while [ -z "$stopped" ]; do
	claimed=$(sql -v worker="$worker" -v queue="$queue" <<-'SQL'
		SELECT run_id, attempt, extract(epoch FROM lease_expires_at - clock_timestamp()) / 3, payload->>'order_id'
		FROM trigger_idem.run_claim(:'worker', :'queue')
	SQL
	)
	if [ -n "$claimed" ]; then
		IFS=$'\t' read -r run attempt interval order <<<"$claimed"
		heartbeats "$interval" &
		error=$(work 2>&1) || fail "$error" >/dev/null || true
		kill $! 2>/dev/null || true
	elif [ "${1:-}" = --stop-when-idle ]; then
		break
	else
		sleep "$poll_seconds" &
		wait $! || true          # a signal ends this
	fi
done
