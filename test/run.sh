#!/usr/bin/env bash
# All tests of trigger_idem.  Usage: test/run.sh
#
# Installs the packages that it needs with apt-get (through sudo when not root),
# builds from a copy of the checkout, and runs everything on throw-away servers
# that use the build without installing it.  The last line is "N passed, N
# failed"; what failed is shown before it.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/setup.sh
. "$checkout/test/setup.sh"

pg_version=15
pg_bin=/usr/lib/postgresql/$pg_version/bin
passed=0
failed=0

# ---------- The place to work in ----------

work=$(mktemp -d /tmp/trigger_idem_test.XXXXXX)
source=$work/source
root=$work/root
socket=$work/socket
log=$work/log

# PostgreSQL refuses to run as root.
as_user() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

clean_up() {
	[ ! -d "$work/data" ] || as_user "$pg_bin/pg_ctl" -D "$work/data" -m immediate -s stop || true
	rm -rf "$work"
}
trap clean_up EXIT

title() {
	printf '\n== %s\n' "$*"
}

# check NAME COMMAND...: one test that is a command; its output is shown only
# when it fails.
check() {
	local name=$1
	shift
	if "$@" >"$log/check" 2>&1; then
		echo "ok: $name"
		passed=$((passed + 1))
	else
		echo "not ok: $name"
		tail -50 "$log/check"
		failed=$((failed + 1))
	fi
}

# count_tests FILE STATUS OK NOT_OK: add up the tests of a driver by its lines
# that match the patterns; a driver that fails without a failed test is one.
count_tests() {
	local file=$1 status=$2 good bad
	good=$(grep -cE "$3" "$file" || true)
	bad=$(grep -cE "$4" "$file" || true)
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
		bad=1
	fi
	if [ "$good" -eq 0 ] && [ "$bad" -eq 0 ]; then
		echo "no test was run"
		bad=1
	fi
	passed=$((passed + good))
	failed=$((failed + bad))
	echo "$good passed, $bad failed"
	if [ "$bad" -ne 0 ]; then
		grep -E "$4" "$file" || tail -50 "$file"
	fi
}

# ---------- Building ----------

prepare() {
	mkdir -p "$source" "$root" "$socket" "$log"
	(cd "$checkout" && tar -cf - --exclude=.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' .) |
		tar -xf - -C "$source"
	cat >"$work/server.conf" <<-CONF
		extension_destdir = '$root'
		dynamic_library_path = '$root/usr/lib/postgresql/$pg_version/lib:\$libdir'
		fsync = off
	CONF
	if [ "$(id -u)" -eq 0 ]; then
		chown -R postgres "$work"
	fi
	chmod 755 "$work"
}

build() {
	as_user make -s -C "$source" PG_CONFIG="$pg_bin/pg_config" with_llvm=no "$@"
}

# Without a warning, with both compilers.  PGXS hands gcc's options to clang,
# and the server's headers have attributes that clang does not know.
test_build() {
	title "Build"
	check "gcc has no warning" build COPT=-Werror
	build clean >/dev/null
	check "clang has no warning" build CC=clang COPT="-Werror -Wno-unknown-warning-option \
		-Wno-ignored-optimization-argument -Wno-ignored-attributes"
	build clean >/dev/null
	check "the version is the same everywhere" as_user make -s -C "$source" PG_CONFIG="$pg_bin/pg_config" checkver
	build COPT="-Werror -DUSE_ASSERT_CHECKING" install DESTDIR="$root" >"$log/install" 2>&1 || {
		cat "$log/install"
		return 1
	}
}

test_static() {
	title "Static checks"
	local status=0
	PG_CONFIG="$pg_bin/pg_config" "$checkout/test/static.sh" >"$log/static" 2>&1 || status=$?
	count_tests "$log/static" "$status" '^ok ' '^not ok '
	[ "$status" -eq 0 ] || grep '^#' "$log/static" | head -100
}

# ---------- One server for the suites that need no more ----------

start_server() {
	as_user "$pg_bin/initdb" -D "$work/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 -N >/dev/null
	as_user tee -a "$work/data/postgresql.conf" <"$work/server.conf" >/dev/null
	as_user "$pg_bin/pg_ctl" -D "$work/data" -l "$work/data/server.log" -s -w \
		-o "-c listen_addresses='' -c unix_socket_directories='$socket' -c log_min_messages=warning -c log_line_prefix='%m [%p] %e ' \
		    -c max_prepared_transactions=10" start
}

run_psql() {
	as_user "$pg_bin/psql" -X -q -h "$socket" -U postgres -v ON_ERROR_STOP=1 "$@"
}

# How pg_regress and its kin say it, before 16 and since
regress_ok='^(test .*\.\.\. ok|ok [0-9])'
regress_not_ok='^(test .*\.\.\. FAILED|not ok [0-9])'

# regress DIRECTORY OPTION...: the regression suite
regress() {
	local name=$1 status=0
	shift
	local tests=(setup)
	for file in "$checkout"/sql/*.sql; do
		file=$(basename "$file" .sql)
		[ "$file" = setup ] || tests+=("$file")
	done
	mkdir -p "$work/$name"
	[ "$(id -u)" -ne 0 ] || chown postgres "$work/$name"
	(cd "$work/$name" && as_user "/usr/lib/postgresql/$pg_version/lib/pgxs/src/test/regress/pg_regress" \
		--inputdir="$source" --outputdir="$work/$name" --bindir="$pg_bin" --host="$socket" --user=postgres \
		"$@" "${tests[@]}") >"$log/$name" 2>&1 || status=$?
	count_tests "$log/$name" "$status" "$regress_ok" "$regress_not_ok"
	[ ! -s "$work/$name/regression.diffs" ] || head -200 "$work/$name/regression.diffs"
}

test_regress() {
	title "Regression suite"
	regress regress --load-extension=trigger_idem
}

test_hostile() {
	title "Regression suite with hostile objects first in the search path"
	run_psql -d postgres -c 'CREATE DATABASE hostile TEMPLATE template0'
	run_psql -d hostile -f "$source/test/hostile.sql" >/dev/null
	# as pg_regress sets up a database of its own
	run_psql -d hostile -c "ALTER DATABASE hostile SET lc_messages = 'C'" \
		-c "ALTER DATABASE hostile SET datestyle = 'Postgres, MDY'" \
		-c "ALTER DATABASE hostile SET intervalstyle = 'postgres_verbose'"
	regress hostile --use-existing --dbname=hostile
}

test_isolation() {
	title "Isolation specs"
	local status=0 specs=()
	for file in "$checkout"/test/isolation/specs/*.spec; do
		specs+=("$(basename "$file" .spec)")
	done
	mkdir -p "$work/isolation"
	[ "$(id -u)" -ne 0 ] || chown postgres "$work/isolation"
	(cd "$work/isolation" && as_user "/usr/lib/postgresql/$pg_version/lib/pgxs/src/test/isolation/pg_isolation_regress" \
		--inputdir="$source/test/isolation" --outputdir="$work/isolation" --bindir="$pg_bin" --host="$socket" \
		--user=postgres --dbname=isolation --load-extension=trigger_idem "${specs[@]}") >"$log/isolation" 2>&1 || status=$?
	count_tests "$log/isolation" "$status" "$regress_ok" "$regress_not_ok"
	[ ! -s "$work/isolation/regression.diffs" ] || head -200 "$work/isolation/regression.diffs"
}

test_pgtap() {
	title "pgTAP"
	local status=0
	run_psql -d postgres -c 'CREATE DATABASE pgtap'
	run_psql -d pgtap -c 'CREATE EXTENSION trigger_idem'
	as_user env PATH="$pg_bin:$PATH" pg_prove -v -h "$socket" -U postgres -d pgtap "$source"/test/pgtap/*.sql \
		>"$log/pgtap" 2>&1 || status=$?
	count_tests "$log/pgtap" "$status" '^ok [0-9]' '^not ok [0-9]'
}

# ---------- Tests that start their own servers ----------

test_tap() {
	title "TAP: crashes, restarts, dumps, standbys"
	local status=0 pgxs=/usr/lib/postgresql/$pg_version/lib/pgxs
	mkdir -p "$work/tap"
	[ "$(id -u)" -ne 0 ] || chown postgres "$work/tap"
	(cd "$work/tap" && as_user env PATH="$pg_bin:$PATH" TESTDIR="$work/tap" TEMP_CONFIG="$work/server.conf" \
		PG_REGRESS="$pgxs/src/test/regress/pg_regress" \
		prove -v -I "$pgxs/src/test/perl" -I "$source/test/tap" "$source"/test/tap/*.pl) >"$log/tap" 2>&1 || status=$?
	count_tests "$log/tap" "$status" '^ok [0-9]' '^not ok [0-9]'
	grep -E '^(# +(Failed|at|got|expected)|[^ ]*\.pl \.+ (Failed|Dubious))' "$log/tap" | head -100 || true
}

# A Node that is there will do.  Debian's npm brings hundreds of packages, but what
# drives the browser and what judges its pages are in npm's registry alone.
node_packages=(chromium)
command -v npm >/dev/null || node_packages+=(nodejs npm)

test_examples() {
	title "Examples of applications"
	local status=0
	as_user env PATH="$pg_bin:$PATH" PGHOST="$socket" PGUSER=postgres PGDATABASE=postgres \
		"$source/test/examples.sh" >"$log/examples" 2>&1 || status=$?
	count_tests "$log/examples" "$status" '^ok ' '^not ok '
}

test_fuzz() {
	title "Fuzz of every function's arguments"
	local status=0
	as_user env PGHOST="$socket" PGUSER=postgres PGDATABASE=postgres \
		python3 "$source/test/fuzz/fuzz.py" >"$log/fuzz" 2>&1 || status=$?
	grep '^# seed' "$log/fuzz" || true
	count_tests "$log/fuzz" "$status" '^ok ' '^not ok '
	[ "$status" -eq 0 ] || grep '^#' "$log/fuzz" | head -100
}

test_dashboard() {
	title "Dashboard in a browser"
	local status=0
	mkdir -p "$work/npm"
	cp "$source/test/dashboard/package.json" "$work/npm"
	[ "$(id -u)" -ne 0 ] || chown -R postgres "$work/npm"
	as_user npm install --silent --no-audit --no-fund --cache "$work/npm/cache" --prefix "$work/npm" >"$log/npm" 2>&1 || {
		cat "$log/npm"
		return 1
	}
	as_user env PATH="$pg_bin:$PATH" PGHOST="$socket" PGUSER=postgres PGDATABASE=postgres \
		"$source/test/dashboard.sh" "$work/npm/node_modules" "$work/screenshots" >"$log/dashboard" 2>&1 || status=$?
	count_tests "$log/dashboard" "$status" '^ok ' '^not ok '
	# to look at; a checkout that cannot be written to goes without
	if mkdir -p "$checkout/screenshots" 2>/dev/null; then
		cp "$work/screenshots"/*.png "$checkout/screenshots" || true
	fi
}

need_packages postgresql-$pg_version postgresql-server-dev-$pg_version postgresql-$pg_version-pgtap \
	postgresql-plpython3-$pg_version postgresql-plperl-$pg_version postgresql-$pg_version-cron \
	libtap-parser-sourcehandler-pgtap-perl libipc-run-perl make gcc libc6-dev clang perl "${node_packages[@]}" \
	clang-tidy cppcheck shellcheck python3-pglast libpq5
prepare
test_static
test_build
start_server
test_regress
test_hostile
test_isolation
test_pgtap
test_examples
test_fuzz
test_dashboard
test_tap

# The server must have met nothing that should not happen.
title "Server log"
log_is_clean() {
	! grep -E "XX000|PANIC|TRAP|terminated by signal|WARNING:.*(leak|not closed|reference)" "$work/data/server.log"
}
check "no internal error, failed assertion or crash" log_is_clean

printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
