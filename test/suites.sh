# shellcheck shell=bash
# Building the extension and running the suites, for one version of PostgreSQL.
# To be sourced after test/lib.sh, in a workplace made by make_workplace(), and
# told by use_server() which server it is.
# shellcheck disable=SC2154	# test/lib.sh sets them

# ---------- Which server ----------

# use_server VERSION BIN: the server whose programs are in the folder BIN.  Into one
# that is in the workplace itself the extension is installed, others are told
# where it is.
use_server() {
	pg_version=$1
	pg_bin=$2
	destdir=$root
	[ "${pg_bin#"$work"}" = "$pg_bin" ] || destdir=
	pg_config=$pg_bin/pg_config
	pgxs=$(cd "$(dirname "$("$pg_config" --pgxs)")/../.." && pwd)
	echo "fsync = off" >"$work/server.conf"
	if [ -n "$destdir" ]; then
		echo "dynamic_library_path = '$destdir$("$pg_config" --pkglibdir):\$libdir'" >>"$work/server.conf"
		# Debian's patch, or what 18 has of its own
		if [ "$pg_version" -ge 18 ]; then
			echo "extension_control_path = '$destdir$("$pg_config" --sharedir):\$system'" >>"$work/server.conf"
		else
			echo "extension_destdir = '$destdir'" >>"$work/server.conf"
		fi
	fi
	give "$work/server.conf"
}

# ---------- Building ----------

# build [VARIABLE=VALUE|TARGET]...
build() {
	as_user make -s -C "$source" PG_CONFIG="$pg_config" with_llvm=no "$@"
}

# install_build [VARIABLE=VALUE]...: for the servers of this workplace
install_build() {
	build clean >/dev/null
	build "$@" install DESTDIR="$destdir" >"$log/install" 2>&1 || {
		cat "$log/install"
		return 1
	}
}

# Without a warning, with both compilers where there are two.  PGXS hands gcc's
# options to clang, and the server's headers have attributes that clang does not
# know.
test_build() {
	check "gcc has no warning" build COPT=-Werror
	if command -v clang >/dev/null; then
		build clean >/dev/null
		check "clang has no warning" build CC=clang COPT="-Werror -Wno-unknown-warning-option \
			-Wno-ignored-optimization-argument -Wno-ignored-attributes"
	fi
	check "the version is the same everywhere" build checkver
	install_build COPT="-Werror -DUSE_ASSERT_CHECKING"
}

# ---------- One server for the suites that need no more ----------

# $server_options: more options of the server
start_server() {
	as_user "$pg_bin/initdb" -D "$work/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 -N >/dev/null
	as_user tee -a "$work/data/postgresql.conf" <"$work/server.conf" >/dev/null
	as_user "$pg_bin/pg_ctl" -c -D "$work/data" -l "$work/data/server.log" -s -w -t 300 \
		-o "-c listen_addresses='' -c unix_socket_directories='$socket' -c log_min_messages=warning -c log_line_prefix='%m [%p] %e ' \
		    -c max_prepared_transactions=10 ${server_options:-}" start
}

stop_server() {
	[ ! -e "$work/data/postmaster.pid" ] || as_user "$pg_bin/pg_ctl" -D "$work/data" -m "${1:-immediate}" -t 300 -s stop
}

run_psql() {
	as_user "$pg_bin/psql" -X -q -h "$socket" -U postgres -v ON_ERROR_STOP=1 "$@"
}

# log_is_clean [CRASH [ALLOWED]]: the server must have met nothing that should not
# happen.  Of a crash it shows where, if gdb is there.
log_is_clean() {
	local met
	met=$(grep -v -E "${2:-^$}" "$work/data/server.log" |
		grep -A 4 -E "XX000|PANIC|TRAP|${1:-terminated by signal}|WARNING:.*(leak|not closed|reference)") || return 0
	head -n 25 <<<"$met"
	[ ! -f "$work/data/core" ] || ! command -v gdb >/dev/null ||
		gdb -batch -ex bt "$pg_bin/postgres" "$work/data/core" 2>&1 | grep -m 20 '^#'
	return 1
}

test_server_log() {
	check "no internal error, failed assertion or crash" log_is_clean
}

# ---------- Suites ----------

# How pg_regress and its kin say it, before 16 and since
regress_ok='^(test .*\.\.\. ok|ok [0-9])'
regress_not_ok='^(test .*\.\.\. FAILED|not ok [0-9])'

# run_regress DIRECTORY DRIVER TEST... [-- OPTION...]
run_regress() {
	local name=$1 driver=$2 status=0 tests=()
	shift 2
	while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
		tests+=("$1")
		shift
	done
	[ "$#" -eq 0 ] || shift
	mkdir -p "$work/$name"
	give "$work/$name"
	(cd "$work/$name" && as_user "$pgxs/src/test/$driver" \
		--outputdir="$work/$name" --bindir="$pg_bin" --host="$socket" --user=postgres \
		"$@" "${tests[@]}") >"$log/$name" 2>&1 || status=$?
	count_tests "$log/$name" "$status" "$regress_ok" "$regress_not_ok"
	[ ! -s "$work/$name/regression.diffs" ] || head -n 200 "$work/$name/regression.diffs"
}

# The names of the tests in a folder, those given first
tests_in() {
	local folder=$1 suffix=$2 file
	shift 2
	[ "$#" -eq 0 ] || printf '%s\n' "$@"
	for file in "$folder"/*"$suffix"; do
		file=$(basename "$file" "$suffix")
		[[ " $* " = *" $file "* ]] || printf '%s\n' "$file"
	done
}

# regress DIRECTORY OPTION...: the regression suite
regress() {
	local name=$1 tests
	shift
	mapfile -t tests < <(tests_in "$source/sql" .sql setup)
	run_regress "$name" regress/pg_regress "${tests[@]}" -- --inputdir="$source" "$@"
}

test_regress() {
	regress regress --load-extension=trigger_idem
}

# make_regression_database NAME: as pg_regress sets up one of its own
make_regression_database() {
	run_psql -d postgres -c "CREATE DATABASE $1 TEMPLATE template0" \
		-c "ALTER DATABASE $1 SET lc_messages = 'C'" \
		-c "ALTER DATABASE $1 SET datestyle = 'Postgres, MDY'" \
		-c "ALTER DATABASE $1 SET intervalstyle = 'postgres_verbose'"
}

# With hostile objects first in the search path
test_hostile() {
	make_regression_database hostile
	run_psql -d hostile -f "$source/test/hostile.sql" >/dev/null
	regress hostile --use-existing --dbname=hostile
}

test_isolation() {
	local specs
	mapfile -t specs < <(tests_in "$source/test/isolation/specs" .spec)
	run_regress isolation isolation/pg_isolation_regress "${specs[@]}" -- \
		--inputdir="$source/test/isolation" --dbname=isolation --load-extension=trigger_idem
}

test_pgtap() {
	local status=0
	run_psql -d postgres -c 'CREATE DATABASE pgtap'
	run_psql -d pgtap -c 'CREATE EXTENSION trigger_idem'
	as_user env PATH="$pg_bin:$PATH" pg_prove -v -h "$socket" -U postgres -d pgtap "$source"/test/pgtap/*.sql \
		>"$log/pgtap" 2>&1 || status=$?
	count_tests "$log/pgtap" "$status" '^ok [0-9]' '^not ok [0-9]'
	grep -A 3 'ERROR: ' "$log/pgtap" | head -n 20 || true
	[ "$status" -eq 0 ] || grep -E '^# ' "$log/pgtap" | head -n 40
}

test_examples() {
	local status=0
	as_user env PATH="$pg_bin:$PATH" PGHOST="$socket" PGUSER=postgres PGDATABASE=postgres \
		"$source/test/examples.sh" >"$log/examples" 2>&1 || status=$?
	count_tests "$log/examples" "$status" '^ok ' '^not ok '
}

test_static() {
	local status=0
	PG_CONFIG=$pg_config "$checkout/test/static.sh" >"$log/static" 2>&1 || status=$?
	count_tests "$log/static" "$status" '^ok ' '^not ok '
	[ "$status" -eq 0 ] || grep '^#' "$log/static" | head -n 100
}

# All of it on one version, less on others
test_fuzz() {
	local status=0 calls=100000
	[ "$pg_version" -eq 15 ] || calls=25000
	as_user env PGHOST="$socket" PGUSER=postgres PGDATABASE=postgres \
		/usr/bin/python3 "$source/test/fuzz/fuzz.py" --calls "$calls" >"$log/fuzz" 2>&1 || status=$?
	grep '^# seed' "$log/fuzz" || true
	count_tests "$log/fuzz" "$status" '^ok ' '^not ok '
	[ "$status" -eq 0 ] || grep '^#' "$log/fuzz" | head -n 100
}

test_dashboard() {
	local status=0
	mkdir -p "$work/npm"
	cp "$source/test/dashboard/package.json" "$work/npm"
	give "$work/npm"
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

# What tests do to a server on purpose is SIGKILL.
tap_logs_are_clean() {
	! grep -r --include='*.log' -A 4 -E 'TRAP|by signal ([^9]|9[^:])' "$work/tap"
}

# TAP tests start their own servers.  test_tap FILE...
test_tap() {
	local status=0 name ended broke_off
	mkdir -p "$work/tap"
	give "$work/tap"
	(cd "$work/tap" && as_user env PATH="$pg_bin:$PATH" TESTDIR="$work/tap" TEMP_CONFIG="$work/server.conf" \
		PG_REGRESS="$pgxs/src/test/regress/pg_regress" \
		TESTLOGDIR="$work/tap/log" TESTDATADIR="$work/tap/data" \
		prove -v --timer -I "$pgxs/src/test/perl" -I "$source/test/tap" "$@") >"$log/tap" 2>&1 || status=$?
	# a file that broke off may have no failed test
	mapfile -t ended < <(sed -nE 's/^.*\/(.*)\.pl +\(Wstat: [1-9].*/\1/p' "$log/tap")
	mapfile -t broke_off < <(sed -nE 's/^.*\/(.*)\.pl +\(Wstat: [1-9].*Failed: 0\).*/\1/p' "$log/tap")
	[ "${#broke_off[@]}" -eq 0 ] || printf 'not ok 0 - %s.pl broke off\n' "${broke_off[@]}" >>"$log/tap"
	count_tests "$log/tap" "$status" '^ok [0-9]' '^not ok [0-9]'
	grep -E "^(# +(Failed|at|got|expected|doesn't match)|# {10,}'|.*\.pl \.+ (Failed|Dubious))" "$log/tap" | head -n 100 || true
	for name in "${ended[@]}"; do
		echo "# the end of $name's log:"
		find "$work/tap" -name "regress_log_$name" -exec tail -n 25 {} + | cut -c 1-500
	done
	check "no failed assertion or crash in their servers' logs" tap_logs_are_clean
}

# ---------- Coverage ----------

build_for_coverage() {
	install_build PG_CFLAGS="--coverage -O0 -g -DUSE_ASSERT_CHECKING" SHLIB_LINK=--coverage
}

# What was not executed is compared with test/coverage.list, which says why each such
# place is not: a place that is not in the list is a failed test, and so is an
# entry that has become needless.  A process that is killed loses what it has counted.
test_coverage() {
	stop_server fast
	(cd "$source" && as_user lcov -q --rc lcov_branch_coverage=1 -c -d . --no-external -o "$work/coverage.info") >"$log/lcov" 2>&1 || {
		cat "$log/lcov"
		return 1
	}
	/usr/bin/python3 "$source/test/coverage.py" "$work/coverage.info" "$source" "$source/test/coverage.list" >"$log/coverage" || true
	cat "$log/coverage"
	count_tests "$log/coverage" 0 '^ok ' '^not ok '
}
