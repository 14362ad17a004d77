#!/usr/bin/env bash
# Runs the application workers of doc/examples.  Usage: test/examples.sh
#
# Needs node, npm or Debian's node-pg, psql, and PGHOST, PGPORT, PGUSER and PGDATABASE of a server,
# or of a pooler in transaction mode with LISTEN_HOST or LISTEN_PORT of the server,
# on which the extension is available, with a superuser.  Everything happens in a
# database of its own, which is dropped at the end.  Workers are stopped at the
# interesting moment by a lock on the table that they are about to write to.
set -euo pipefail

examples=$(cd "$(dirname "$0")/../doc/examples" && pwd)
database=trigger_idem_examples_$$
deadline=60
orders=8
tests=0
failed=0

# In groups of their own, so that a killed worker takes its children along
worker=
locker=
scenario=

work=$(mktemp -d "${TMPDIR:-/tmp}/trigger_idem_examples.XXXXXX")

on_server() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -d "${PGDATABASE:-postgres}" "$@"
}

sql() {
	psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" "$@"
}

clean_up() {
	exec 9>&-
	[ -z "$worker" ] || kill -9 -- "-$worker" 2>/dev/null || true
	wait
	on_server -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" 2>/dev/null || true
	rm -rf "$work"
}
trap clean_up EXIT

# ---------- TAP ----------

# ok NAME COMMAND...
ok() {
	local name=$1
	shift
	tests=$((tests + 1))
	if "$@"; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		failed=$((failed + 1))
	fi
}

# is NAME EXPECTED QUERY
is() {
	local got
	got=$(sql -v name="$scenario" <<<"$3" 2>&1) || true
	ok "$scenario: $1" [ "$got" = "$2" ]
	[ "$got" = "$2" ] || printf '# expected: %s\n# got: %s\n' "$2" "$got"
}

# until QUERY gives t
wait_for() {
	local until=$((SECONDS + deadline))
	until [ "$(sql -v name="$scenario" <<<"$1")" = t ]; do
		if [ $SECONDS -ge $until ]; then
			echo "not ok - $scenario: waited in vain for: $1"
			sed 's/^/# /' "$work/worker.log"
			exit 1
		fi
		sleep 0.05
	done
}

# ---------- Workers, and where they stop ----------

# start_worker ARGUMENT...: in a group of its own
start_worker() {
	PGDATABASE=$database setsid "${command[@]}" "$@" >>"$work/worker.log" 2>&1 9>&- &
	worker=$!
}

# The worker must end, with 0.
end_worker() {
	local status=0
	wait "$worker" || status=$?
	worker=
	ok "$scenario: $1" [ "$status" -eq 0 ]
}

kill_worker() {
	kill -9 -- "-$worker"
	wait "$worker" 2>/dev/null || true
	worker=
}

# Have nobody write to a table until unlock.
lock() {
	mkfifo "$work/locker"
	sql <"$work/locker" >/dev/null &
	locker=$!
	exec 9>"$work/locker"
	printf 'BEGIN; LOCK TABLE %s IN SHARE MODE;\n' "$1" >&9
	wait_for "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '$1'::regclass AND mode = 'ShareLock' AND granted)"
}

unlock() {
	exec 9>&-
	wait "$locker"
	rm "$work/locker"
}

# Until somebody wants to write to a locked table
wait_for_writer() {
	wait_for "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '$1'::regclass AND NOT granted)"
}

# Until nobody does any more
wait_for_no_writer() {
	wait_for "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE relation = '$1'::regclass AND pid <> pg_backend_pid())"
}

# ---------- What every worker is put through ----------

unfinished="SELECT count(*) FROM trigger_idem.runs WHERE tags = ARRAY[:'name'] AND finished_at IS NULL"

# Orders are triggered twice each, with the same key.
trigger_orders() {
	sql -v name="$scenario" -v orders=$orders >/dev/null <<-'SQL'
		TRUNCATE booking, payment, approval;
		ALTER SEQUENCE refusals RESTART;
		SELECT t.run_id FROM generate_series(1, 2) again, generate_series(1, :orders) o,
			trigger_idem.trigger_task('order', jsonb_build_object('order_id', o), :'name' || o,
				tags => ARRAY[:'name'], metadata => to_jsonb(again)) t;
	SQL
}

# As a service supervisor would: start it again until there is nothing left, or so much.
work_all() {
	local until=$((SECONDS + deadline))
	until [ "$(sql -v name="$scenario" <<<"$unfinished")" = "${1:-0}" ]; do
		if [ $SECONDS -ge $until ]; then
			echo "not ok - $scenario: runs are left"
			sed 's/^/# /' "$work/worker.log"
			exit 1
		fi
		start_worker --stop-when-idle
		wait "$worker" || { sed 's/^/# /' "$work/worker.log"; ok "$scenario: it ends when it is idle" false; exit 1; }
		worker=
		sleep 0.05
	done
}

test_killed() {
	trigger_orders

	# dies when the service has been asked, but has not answered yet
	lock payment
	start_worker
	wait_for_writer payment
	kill_worker
	is "a killed worker still holds its run" 1 \
		"SELECT count(*) FROM trigger_idem.runs WHERE tags = ARRAY[:'name'] AND status = 'executing'"
	unlock
	wait_for_no_writer payment

	# dies in the transaction that books, after the charge
	lock booking
	start_worker
	wait_for_writer booking
	kill_worker
	unlock
	wait_for_no_writer booking

	work_all
	is "every run is completed" "$orders" \
		"SELECT count(*) FROM trigger_idem.runs WHERE tags = ARRAY[:'name'] AND status = 'completed'"
	is "two attempts have died" 2 \
		"SELECT count(*) FROM trigger_idem.attempts JOIN trigger_idem.runs r USING (run_id)
		 WHERE tags = ARRAY[:'name'] AND attempts.status = 'crashed'"
	is "one attempt was refused by the service, and tried again" 1 \
		"SELECT count(*) FROM trigger_idem.attempts JOIN trigger_idem.runs r USING (run_id)
		 WHERE tags = ARRAY[:'name'] AND attempts.status = 'failed' AND attempts.error->>'message' LIKE '%out of order%'"
	is "every order was charged with one key" "$orders|$orders" \
		"SELECT count(*), count(DISTINCT order_id) FROM payment"
	# whether the call of the first that died was lost depends on its driver
	is "at most one of them was called for twice" t \
		"SELECT sum(calls) BETWEEN $orders AND $((orders + 1)) FROM payment"
	is "every order is booked once, with its charge and run" "$orders|$orders" \
		"SELECT count(*), count(DISTINCT order_id) FROM booking JOIN payment USING (order_id, charge_id)
		 JOIN trigger_idem.runs r USING (run_id) WHERE (r.payload->>'order_id')::int = order_id"
	is "nothing else is booked" "$orders" "SELECT count(*) FROM booking"
	is "every payment's key is that of the run's step" "$orders" \
		"SELECT count(*) FROM payment JOIN trigger_idem.steps USING (idempotency_key) WHERE output = to_jsonb(charge_id)"
}

test_terminated() {
	trigger_orders
	lock payment
	start_worker
	wait_for_writer payment
	kill -TERM "$worker"
	"wait_for_stop_of_$scenario"
	unlock
	end_worker "it ends on SIGTERM"
	is "and leaves no run executing" 0 "SELECT count(*) FROM trigger_idem.runs WHERE status = 'executing'"
	is "what it had in hand is released or completed" 1 \
		"SELECT count(*) FROM trigger_idem.attempts a JOIN trigger_idem.runs r USING (run_id)
		 WHERE tags = ARRAY[:'name'] AND a.status = '$1'"
	work_all
	is "then everything is charged and booked once" "$orders|$orders" \
		"SELECT count(*), sum(calls) FROM booking JOIN payment USING (order_id, charge_id)"
}

# It says so; a shell has the signal when kill returns.
wait_for_stop_of_js() {
	local until=$((SECONDS + deadline))
	until grep -q stopping "$work/worker.log" || [ $SECONDS -ge $until ]; do
		sleep 0.05
	done
}

wait_for_stop_of_js_term() { wait_for_stop_of_js; }
wait_for_stop_of_sh_term() { :; }

test_bad_payload() {
	sql -v name="$scenario" <<<"SELECT FROM trigger_idem.trigger_task('order', '{}', tags => ARRAY[:'name'])"
	work_all
	is "a bad payload fails at the first attempt" "failed|1|no order_id" \
		"SELECT status, attempt, error->>'message' FROM trigger_idem.runs WHERE tags = ARRAY[:'name']"
}

# An order that has to be approved waits, without a worker.
test_approval() {
	trigger_orders
	sql -v name="$scenario" >/dev/null <<-'SQL'
		SELECT trigger_idem.trigger_task('order', jsonb_build_object('order_id', o, 'needs_approval', true), tags => ARRAY[:'name'])
		FROM generate_series(101, 102) o;
	SQL
	work_all 2
	is "what is to be approved waits" "waiting|2" \
		"SELECT status, count(*) FROM trigger_idem.runs WHERE tags = ARRAY[:'name'] AND finished_at IS NULL GROUP BY 1"
	is "all others were worked in the meantime" "$orders|t" \
		"SELECT count(*), bool_and(order_id < 100) FROM booking JOIN payment USING (order_id, charge_id)"

	# the next worker is killed when it goes on; another one is woken, not polling
	lock booking
	sql >/dev/null <<<"SELECT trigger_idem.wait_token_complete(token, '{\"approved\": true}') FROM approval WHERE order_id = 101"
	start_worker
	wait_for_writer booking
	kill_worker
	unlock
	wait_for_no_writer booking
	work_all 1
	POLL_SECONDS=$((deadline * 10)) start_worker
	wait_for "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN trigger_idem')"
	sql >/dev/null <<-'SQL'
		BEGIN;
		SET LOCAL trigger_idem.notify = on;
		SELECT trigger_idem.wait_token_complete(token, '{"approved": false}') FROM approval WHERE order_id = 102;
		COMMIT;
	SQL
	wait_for "SELECT ($unfinished) = 0"
	kill -TERM "$worker"
	end_worker "it ends on SIGTERM"
	is "one is approved and one refused; a wait is no failure" \
		"101|completed||waiting crashed completed|102|failed|not approved|waiting failed" \
		"SELECT string_agg(concat_ws('|', payload->>'order_id', status, COALESCE(error->>'message', ''), (SELECT string_agg(a.status, ' ' ORDER BY attempt)
		 FROM trigger_idem.attempts a WHERE a.run_id = r.run_id)), '|' ORDER BY payload->>'order_id')
		 FROM trigger_idem.runs r WHERE tags = ARRAY[:'name'] AND payload ? 'needs_approval'"
	is "each was asked for once" "101 102" "SELECT string_agg(order_id::text, ' ' ORDER BY order_id) FROM approval"
	is "what is approved is charged and booked once, the other is not" "101|1" \
		"SELECT order_id, sum(calls) FROM booking JOIN payment USING (order_id, charge_id) WHERE order_id > 100 GROUP BY 1"
}

# With a poll that would take longer than the test
test_notify() {
	POLL_SECONDS=$((deadline * 10)) start_worker
	wait_for "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN trigger_idem')"
	# the second one, because the worker may have been about to claim when the first came
	for order in 1 2; do
		sql -v name="$scenario" -v order=$order <<-'SQL'
			BEGIN;
			SET LOCAL trigger_idem.notify = on;
			SELECT FROM trigger_idem.trigger_task('order', jsonb_build_object('order_id', :order), tags => ARRAY[:'name']);
			COMMIT;
		SQL
		wait_for "SELECT ($unfinished) = 0"
	done
	ok "$scenario: NOTIFY wakes it" true
	kill -TERM "$worker"
	end_worker "an idle worker ends on SIGTERM"
}

# ---------- All of it ----------

mkdir "$work/node"
cp "$examples/worker.js" "$examples/package.json" "$work/node"
if ! command -v npm >/dev/null && [ -d /usr/share/nodejs/pg ]; then
	# Debian's package node-pg
	mkdir "$work/node/node_modules"
	ln -s /usr/share/nodejs/pg "$work/node/node_modules/pg"
elif ! (cd "$work/node" && npm install --silent --no-audit --no-fund --cache "$work/npm" >"$work/npm.log" 2>&1); then
	sed 's/^/# /' "$work/npm.log"
	echo "not ok - npm installs what the worker in Node needs"
	exit 1
fi
on_server -c "CREATE DATABASE $database"
# order 3 is refused once; a sequence remembers that over the rollback
sql -c 'CREATE EXTENSION trigger_idem' -f "$examples/setup.sql" >/dev/null
sql >/dev/null <<-'SQL'
	SELECT trigger_idem.task_create('order', queue => 'orders', max_attempts => 5, lease_duration => '1 second',
		min_backoff => '0.1 seconds');
	CREATE SEQUENCE refusals;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF nextval('refusals') = 1 THEN
			RAISE EXCEPTION 'the service is out of order';
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON payment FOR EACH ROW WHEN (NEW.order_id = 3) EXECUTE FUNCTION refuse();
SQL

: >"$work/worker.log"
command=(node "$work/node/worker.js")
scenario=js test_killed
scenario=js_term test_terminated released
scenario=js_bad test_bad_payload
scenario=js_approval test_approval
scenario=js_notify test_notify

command=("$examples/worker.sh")
scenario="sh" test_killed
scenario=sh_term test_terminated completed

echo "1..$tests"
[ "$failed" -eq 0 ]
