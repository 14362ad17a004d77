#!/usr/bin/env bash
# All tests of trigger_idem on one version of PostgreSQL.
#
#	test/run.sh [15 [SUITE]...]	on the machine's own
#	test/run.sh 17 [SUITE]...	in a minimal Debian root that is made for it; 18, 19 too
#	test/run.sh --coverage [SUITE]...	on the machine's own, and tell which lines of src/
#						they have executed
#
# Suites are static, regress, hostile, isolation, pgtap, examples, fuzz, dashboard, tap
# and tap/FILE.pl; where none is named, all of them on 15, and on others all but static
# and dashboard, which look at what is the same there.
#
# Installs the packages that it needs with apt-get (through sudo when not root),
# builds from a copy of the checkout, and runs everything on throw-away servers
# that use the build without installing it.  The last line is "N passed, N
# failed"; what failed is shown before it.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"
# shellcheck source=test/roots.sh
. "$checkout/test/roots.sh"

# A Node that is there will do.  Debian's npm brings hundreds of packages, but what
# drives the browser and what judges its pages are in npm's registry alone.
node_packages=(chromium)
command -v npm >/dev/null || node_packages+=(nodejs npm)

# is_there EXTENSION SUITE: what a release candidate has no package of yet is a line
# in the table; anywhere else it is a failure.
is_there() {
	[ ! -e "$("$pg_config" --sharedir)/extension/$1.control" ] || return 0
	if [ "$pg_version" -lt 19 ]; then
		check "$1 is there" false
	else
		echo "$2: no $1 for $pg_version"
		add_result "$2" "$pg_version" "no $1" 0
	fi
	return 1
}

# All TAP tests, but for those of pg_cron where that is not there
run_tap() {
	local file files=()
	for file in "$source"/test/tap/*.pl; do
		if ! grep -q "shared_preload_libraries = 'pg_cron" "$file" || is_there pg_cron "$(basename "$file")"; then
			files+=("$file")
		fi
	done
	step "TAP tests" "$pg_version" test_tap "${files[@]}"
}

# run_suites VERSION [SUITE]...: on what is installed here
run_suites() {
	local version=$1 suite
	shift
	[ "$#" -gt 0 ] || set -- "${suites[@]}"
	make_workplace
	use_server "$version" "/usr/lib/postgresql/$version/bin"
	step "build" "$version" test_build
	[ -z "$with_coverage" ] || build_for_coverage
	start_server
	for suite in "$@"; do
		case $suite in
		static) step "static checks" "$version" test_static ;;
		regress) step "regression suite" "$version" test_regress ;;
		hostile) step "regression suite, hostile objects" "$version" test_hostile ;;
		isolation) step "isolation specs" "$version" test_isolation ;;
		pgtap) ! is_there pgtap pgTAP || step "pgTAP" "$version" test_pgtap ;;
		examples) step "examples of applications" "$version" test_examples ;;
		fuzz) step "fuzz of every function's arguments" "$version" test_fuzz ;;
		dashboard) step "dashboard in a browser" "$version" test_dashboard ;;
		tap) run_tap ;;
		tap/*.pl) step "$suite" "$version" test_tap "$source/test/$suite" ;;
		*) check "there is a suite $suite" false ;;
		esac
	done
	step "server log" "$version" test_server_log
	[ -z "$with_coverage" ] || step "coverage" "$version" test_coverage
	finish
}

with_coverage=
version=${1:-15}
[ "$#" -eq 0 ] || shift
if [ "$version" = --coverage ]; then
	need_packages lcov python3
	with_coverage=yes
	version=15
fi
case $version in
15)
	need_packages postgresql-15 postgresql-server-dev-15 postgresql-15-pgtap \
		postgresql-plpython3-15 postgresql-plperl-15 postgresql-15-cron \
		libtap-parser-sourcehandler-pgtap-perl libipc-run-perl make gcc libc6-dev clang perl pgbouncer "${node_packages[@]}" \
		clang-tidy cppcheck shellcheck python3-pglast libpq5
	suites=(static regress hostile isolation pgtap examples fuzz dashboard tap)
	run_suites 15 "$@"
	;;
--installed)
	suites=(regress hostile isolation pgtap examples fuzz tap)
	run_suites "$@"
	;;
17 | 18 | 19)
	need_packages mmdebstrap debian-archive-keyring
	if ! need_root "$version"; then
		# a release candidate may be gone from where it was
		[ "$version" -eq 19 ] || exit 1
		add_result "all suites" 19 "no root to be had" 0
		finish
		exit
	fi
	run_checkout "$version" test/run.sh --installed "$version" "$@"
	;;
*)
	echo "usage: test/run.sh [15|17|18|19|--coverage [SUITE]...]" >&2
	exit 2
	;;
esac
