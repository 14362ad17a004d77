#!/usr/bin/env bash
# Looks at the code without running it.  Usage: test/static.sh [--indent]
#
# The SQL is held against the rules of static/sql_gate.py; C against cppcheck, clang-tidy
# (.clang-tidy) and pgindent's layout; shell scripts against shellcheck.  Needs these
# programs, python3-pglast, and the server's header files: PG_CONFIG says which.  With
# --indent it lays the code out and does nothing else.
#
# pgindent is not packaged for Debian 12.  It is taken from the next Debian's package of
# PostgreSQL 17 and kept, with what it needs, in TRIGGER_IDEM_CACHE.
# shellcheck disable=SC2317	# ok() calls the functions
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=test/setup.sh
. test/setup.sh

pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
include=$("$pg_config" --includedir-server)
cache=${TRIGGER_IDEM_CACHE:-/var/cache/trigger_idem_test}
indent=$cache/pgindent-17
# with Debian's packages, whatever other Pythons there are
python=/usr/bin/python3
failed=0
scratch=$(mktemp -d)
output=$scratch/output
typedefs=$scratch/typedefs
trap 'rm -rf "$scratch"' EXIT

# ok NAME COMMAND...
ok() {
	local name=$1
	shift
	if "$@" >"$output" 2>&1; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		sed 's/^/# /' "$output" | head -100
		failed=$((failed + 1))
	fi
}

# ---------- SQL ----------

sql_gate() {
	"$python" test/static/sql_gate.py "$@"
}

# ---------- C ----------

# cppcheck has to know the server's macros, but not to judge its headers.
run_cppcheck() {
	cppcheck --quiet --error-exitcode=1 --enable=warning,style,performance,portability --inline-suppr \
		--std=c11 --language=c -D_GNU_SOURCE -I"$include" --suppress="*:$include/*" src/*.c
}

# It says on standard error how much it has left out.  The analyser gives a function up
# after 60,000 states instead of 225,000, which takes half the time.
run_clang_tidy() {
	printf '%s\n' src/*.c | xargs -P "$(nproc)" -I FILE clang-tidy --quiet FILE -- \
		-std=gnu99 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-parameter -isystem "$include" -Isrc \
		-Xclang -analyzer-config -Xclang max-nodes=60000 2>/dev/null
}

# ---------- Encoding ----------

is_ascii() {
	! LC_ALL=C grep -rnP --include='*.sql' --include='*.[ch]' --include='*.control' '[^\x00-\x7F]' src trigger_idem.control
}

# ---------- Layout ----------

# Unpack the next Debian's packages into a folder, with an apt of their own.
fetch_indent() {
	local target=$1 mirror package options
	# shellcheck disable=SC2016	# apt-get fills it in
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1)
	mkdir -p "$target/apt/lists/partial" "$target/apt/archives/partial"
	touch "$target/apt/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$target/apt/sources.list"
	options=(-qq -o Dir::State="$target/apt" -o Dir::State::status="$target/apt/status" -o Dir::Cache="$target/apt"
		-o Dir::Etc::sourcelist="$target/apt/sources.list" -o Dir::Etc::sourceparts=-
		-o Acquire::Retries=3 -o APT::Sandbox::User=root)
	apt-get "${options[@]}" update || return 1
	(cd "$target" && apt-get "${options[@]}" download postgresql-server-dev-17 libc6) || return 1
	for package in "$target"/*.deb; do
		dpkg-deb -x "$package" "$target/root" || return 1
	done
	rm -rf "$target/apt" "$target"/*.deb
	# that program needs a newer C library than the machine has
	cat >"$target/pg_bsd_indent" <<-'SCRIPT'
		#!/bin/sh
		root=$(dirname "$0")/root
		libraries=$(echo "$root"/usr/lib/*-linux-gnu)
		exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" "$root/usr/lib/postgresql/17/bin/pg_bsd_indent" "$@"
	SCRIPT
	chmod 755 "$target" "$target/pg_bsd_indent"
}

# Fetch it once; what is there is complete.
have_indent() {
	[ ! -d "$indent" ] || return 0
	fetch_indent "$scratch/pgindent" && as_root mkdir -p "$cache" &&
		as_root cp -r "$scratch/pgindent" "$indent.$$" && as_root mv -T "$indent.$$" "$indent"
}

run_pgindent() {
	have_indent || return 1
	{
		cat "$indent/root/usr/share/postgresql/17/typedefs.list"
		perl test/static/typedefs.pl src/*.[ch]
	} | sort -u >"$typedefs"
	perl "$indent/root/usr/lib/postgresql/17/bin/pgindent" --indent="$indent/pg_bsd_indent" \
		--typedefs="$typedefs" "$@" src/*.[ch]
}

# ---------- All of them ----------

if [ "${1:-}" = --indent ]; then
	shift
	run_pgindent "$@"
	exit
fi

ok "sql_gate.py finds what it should" sql_gate self-test test/static/sql_gate_snippets.sql
# in the Makefile's order; a line that ends in a backslash goes on
read -ra parts < <(sed -e ':next; /\\$/ { N; s/\\\n//; b next; }' Makefile | sed -n 's/^SQL_PARTS = //p')
parts=("${parts[@]/#/src/}")
ok "the install script lets nobody in" sql_gate script "${parts[@]/%/.sql}" trigger_idem.control
for script in src/upgrade/*.sql; do
	[ ! -e "$script" ] || ok "$script lets nobody in" sql_gate script "$script" trigger_idem.control
done
ok "the SQL in C lets nobody in" sql_gate c src/*.c
# a database of another encoding could not read it
ok "what is installed is ASCII" is_ascii
ok "cppcheck finds nothing" run_cppcheck
ok "clang-tidy finds nothing" run_clang_tidy
ok "the layout is pgindent's" run_pgindent --check --diff
mapfile -t scripts < <(find . -name '*.sh' -not -path './node_modules/*' | sort)
ok "shellcheck finds nothing" shellcheck -x "${scripts[@]}"
exit $((failed > 0))
