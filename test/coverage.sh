#!/usr/bin/env bash
# Which lines of src/ the suites execute.  Usage: test/coverage.sh [SUITE]...
#
# Suites are regress, hostile, isolation, pgtap, fuzz and tap; all of them where none
# is named.  Prints a report by file, and compares what was not executed with
# test/coverage.list, which says why each such place is not: a place that is not
# in the list is a failed test, and so is an entry that has become needless.
# A server that is killed loses what it has counted.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"

measure() {
	local suite
	for suite in "$@"; do
		case $suite in
		tap) test_tap "$source"/test/tap/*.pl ;;
		*) "test_$suite" ;;
		esac
	done
	stop_server fast
	(cd "$source" && as_user lcov -q --rc lcov_branch_coverage=1 -c -d . --no-external -o "$work/coverage.info") >"$log/lcov" 2>&1 || {
		cat "$log/lcov"
		return 1
	}
	[ -z "${TRIGGER_IDEM_COVERAGE:-}" ] || cp "$work/coverage.info" "$TRIGGER_IDEM_COVERAGE"
}

need_packages postgresql-15 postgresql-server-dev-15 postgresql-15-pgtap postgresql-plpython3-15 postgresql-plperl-15 \
	postgresql-15-cron libtap-parser-sourcehandler-pgtap-perl libipc-run-perl make gcc libc6-dev perl pgbouncer libpq5 python3 lcov
[ "$#" -gt 0 ] || set -- regress hostile isolation pgtap fuzz tap
make_workplace
use_server 15 /usr/lib/postgresql/15/bin
install_build PG_CFLAGS="--coverage -O0 -g" SHLIB_LINK=--coverage
start_server
measure "$@"
/usr/bin/python3 "$source/test/coverage.py" "$work/coverage.info" "$source" "$source/test/coverage.list" >"$log/coverage" || true
cat "$log/coverage"
step "coverage" 15 count_tests "$log/coverage" 0 '^ok ' '^not ok '
finish
