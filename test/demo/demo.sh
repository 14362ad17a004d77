#!/usr/bin/env bash
# The demo itself, started by run.sh:  demo.sh FOLDER NAME
#
# FOLDER is a temporary folder of our own with the source and the deliveries in
# it; everything made here goes into it, and it is removed at the end.  NAME is
# what the user calls the file of deliveries.
set -euo pipefail

readonly folder=$1 name=$2
readonly source=$folder/source root=$folder/root data=$folder/data
readonly workers=4
readonly patience=120 # seconds without progress

export PGHOST=$folder PGPORT=5432 PGUSER=postgres PGDATABASE=postgres

service_pid=

# ---------- Talking ----------

say() {
	printf '%s\n' "$*"
}

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# Run a command quietly; when it fails, say what it was for and show what it said.
quietly() {
	local purpose=$1 output
	shift
	if ! output=$("$@" 2>&1); then
		printf '%s\n' "$output" >&2
		die "$purpose failed"
	fi
}

# How much is booked: one line that changes on a terminal, else a line for every
# tenth.
progress_shown=-1
show_progress() {
	local tenth=$((booked * 10 / distinct))
	if [ -t 1 ]; then
		printf '\r    %d of %d booked ' "$booked" "$distinct"
	elif [ "$tenth" -ne "$progress_shown" ]; then
		say "    $booked of $distinct booked"
	fi
	progress_shown=$tenth
}

end_progress() {
	if [ -t 1 ]; then
		printf '\n'
	fi
}

# ---------- Cleaning up ----------

clean_up() {
	local status=$?
	trap '' HUP INT PIPE TERM
	if [ -n "$service_pid" ]; then
		kill "$service_pid" 2>/dev/null || true
	fi
	if [ -f "$data/postmaster.pid" ]; then
		pg_ctl -s -D "$data" -m immediate stop || true
	fi
	wait
	cd /
	rm -rf "$folder"
	exit "$status"
}

# ---------- The server, the service, the extension ----------

sql() {
	psql -XqAt -P pager=off -v ON_ERROR_STOP=1 -v VERBOSITY=terse "$@"
}

# A server that nobody else can reach: its only socket is in our folder.  It
# finds the extension there too, so that none is installed on this machine.
create_server() {
	quietly "making a server" initdb -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync
	cat >>"$data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$folder'
		extension_destdir = '$root'
		dynamic_library_path = '$root$(pg_config --pkglibdir):\$libdir'
		demo.service_url = 'http://127.0.0.1:$(cat "$folder/service.port")'
	CONF
}

start_server() {
	if ! pg_ctl -s -w -D "$data" -l "$folder/server.log" start; then
		tail -n 20 "$folder/server.log" >&2
		die "starting the server failed"
	fi
}

start_service() {
	perl "$source/test/demo/service.pl" "$folder/service.port" 2>"$folder/service.log" &
	service_pid=$!
	disown
	until [ -s "$folder/service.port" ]; do
		if ! kill -0 "$service_pid" 2>/dev/null; then
			cat "$folder/service.log" >&2
			die "starting the charging service failed"
		fi
		sleep 0.05
	done
}

# What the service counted, as JSON.
service_counts() {
	# shellcheck disable=SC2016 # the dollars are Perl's
	perl -MHTTP::Tiny -e '
		my $response = HTTP::Tiny->new->get($ARGV[0]);
		die "$ARGV[0]: $response->{status} $response->{content}\n" unless $response->{success};
		print $response->{content}' "http://127.0.0.1:$(cat "$folder/service.port")/counts"
}

build_extension() {
	local options=(-s -C "$source" with_llvm=no PG_CONFIG="$(command -v pg_config)")
	quietly "building the extension" make -j "$(nproc)" "${options[@]}"
	quietly "installing the extension" make "${options[@]}" DESTDIR="$root" install
}

# ---------- The deliveries ----------

load_deliveries() {
	local output
	if ! output=$(sql -v file="$folder/deliveries.jsonl" -f "$source/test/demo/deliveries.sql" 2>&1); then
		die "$name: ${output##*ERROR:  }"
	fi
	output=$(sql -c "SELECT format('line %s: %s', line, problem) FROM demo.line
		WHERE problem IS NOT NULL ORDER BY line LIMIT 5")
	if [ -n "$output" ]; then
		die "$name is not a file of deliveries, one JSON object a line"$'\n'"$output"
	fi
	deliveries=$(sql -c "SELECT count(*) FROM demo.line")
	distinct=$(sql -c "SELECT count(DISTINCT delivery) FROM demo.line")
	if [ "$deliveries" -eq 0 ]; then
		die "$name: no deliveries in this file"
	fi
}

receive_deliveries() {
	sql -f "$source/test/demo/trigger.sql"
	sql -c "SELECT format('    %s new runs, %s times the run that was there already',
		count(*) FILTER (WHERE NOT is_cached), count(*) FILTER (WHERE is_cached)) FROM demo.receipt"
}

# ---------- Working ----------

start_workers() {
	local i
	for ((i = 0; i < workers; i++)); do
		sql -c 'CALL trigger_idem.work()' >/dev/null 2>>"$folder/workers.log" &
	done
}

# Learn how far we are: sets booked and unfinished.
look() {
	local counts
	if ! counts=$(sql -F ' ' -c "SELECT (SELECT count(*) FROM demo.booking),
		(SELECT count(*) FROM trigger_idem.runs WHERE finished_at IS NULL)"); then
		tail -n 20 "$folder/server.log" >&2
		die "the server does not answer"
	fi
	read -r booked unfinished <<<"$counts"
}

# Work until this many deliveries are booked, or no run is unfinished.  A worker
# ends when no run is due; runs that wait for their next attempt need new ones.
work_until_booked() {
	local wanted=$1 before='' since=$SECONDS
	while look && [ "$booked" -lt "$wanted" ] && [ "$unfinished" -gt 0 ]; do
		show_progress
		if [ "$before" != "$booked $unfinished" ]; then
			before="$booked $unfinished" since=$SECONDS
		elif ((SECONDS - since > patience)); then
			end_progress
			tail -n 20 "$folder/workers.log" "$folder/server.log" >&2
			die "$unfinished runs are unfinished and nothing has moved for $patience seconds"
		fi
		if [ -z "$(jobs -pr)" ]; then
			start_workers
		fi
		sleep 0.1
	done
	show_progress
	end_progress
}

# ---------- The result ----------

show_result() {
	local wrong
	sql -v service="$(service_counts)" -f "$source/test/demo/result.sql"
	psql -Xq -P pager=off -P footer=off -c 'SELECT what AS "what happened", number, wanted AS "must be"
		FROM demo.result ORDER BY position'
	wrong=$(sql -c "SELECT format('%s: %s, must be %s', what, number, wanted)
		FROM demo.result WHERE number IS DISTINCT FROM wanted AND wanted IS NOT NULL ORDER BY position")
	if [ -n "$wrong" ]; then
		sql -c "SELECT DISTINCT format('a run failed: %s', error ->> 'message')
			FROM trigger_idem.runs WHERE error IS NOT NULL LIMIT 5" >&2
		tail -n 20 "$folder/workers.log" >&2
		die "something went wrong"$'\n'"$wrong"
	fi
	say "Every delivery was charged once and booked once, in $SECONDS seconds."
}

main() {
	trap clean_up EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 141' PIPE
	trap 'exit 143' TERM

	say "Starting a server and a charging service of the demo's own"
	start_service
	create_server
	start_server
	load_deliveries

	say "Building the extension"
	build_extension
	sql -f "$source/test/demo/handler.sql" >/dev/null

	say "Triggering a run for each of $deliveries deliveries in $name"
	receive_deliveries

	say "Charging and booking with $workers workers"
	work_until_booked $(((distinct + 1) / 2))

	say "Pulling the plug: pg_ctl stop -m immediate, with $(jobs -pr | wc -l) workers at work"
	pg_ctl -s -D "$data" -m immediate stop
	wait
	: >"$folder/workers.log" # all that is in it is their last words
	say "Starting the server again and going on"
	start_server
	work_until_booked $((deliveries + 1))
	wait

	show_result
}

main
