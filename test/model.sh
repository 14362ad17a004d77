#!/usr/bin/env bash
# Random sequences of calls, held against a model.  Usage: test/model.sh [OPTION]...
#
# Options are those of test/model/run.py: --sequences (4000), --length, --seed.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"

run_model() {
	as_user env PGHOST="$socket" PGUSER=postgres PGDATABASE=model PYTHONDONTWRITEBYTECODE=1 \
		/usr/bin/python3 "$source/test/model/run.py" "$@"
}

# model_notices BREAK: it ends with a sequence that is not ok
model_notices() {
	! run_model --seed 1 --sequences 200 --break "$1" >"$log/model_broken" 2>&1 && grep -q '^not ok' "$log/model_broken"
}

test_model() {
	local status=0
	run_psql -d postgres -c 'CREATE DATABASE model'
	run_psql -d model -f "$source/test/model/setup.sql" >/dev/null
	run_model "$@" >"$log/model" 2>&1 || status=$?
	cat "$log/model"
	count_tests "$log/model" "$status" '^ok ' '^not ok '
	# each of these is noticed soon
	local broken
	for broken in release attempts steps order; do
		check "a model that is wrong about this is noticed: $broken" \
			model_notices "$broken"
	done
}

need_packages postgresql-15 postgresql-server-dev-15 make gcc libc6-dev python3 python3-psycopg2
make_workplace
use_server 15 /usr/lib/postgresql/15/bin
install_build COPT="-Werror -DUSE_ASSERT_CHECKING"
server_options='-c synchronous_commit=off -c autovacuum_naptime=5' start_server
[ "$#" -gt 0 ] || set -- --sequences 4000
step "model of the state machine" 15 test_model "$@"
test_server_log
finish
