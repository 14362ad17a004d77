#!/usr/bin/env bash
# Upgrades: of the extension, from every released version, and of the server, by
# pg_upgrade from 15 to 17.  Usage: test/upgrade.sh [extension|server]
#
# A released version is an install script in src/upgrade (see src/README.md).  For
# each of them: the new library serves the old SQL, ALTER EXTENSION UPDATE makes a
# schema that equals a fresh one, and what was in the tables goes on.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=test/lib.sh
. "$checkout/test/lib.sh"
# shellcheck source=test/suites.sh
. "$checkout/test/suites.sh"
# shellcheck source=test/roots.sh
. "$checkout/test/roots.sh"

newest=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$checkout/trigger_idem.control")

script_in() {
	run_psql -d "$1" -At -f "$source/test/keeping/$2.sql"
}

# ---------- What was in the tables ----------

fill() {
	script_in "$1" fill >/dev/null
	run_psql -d "$1" -c "CREATE TABLE kept_before AS $(cat "$source/test/keeping/show.sql")"
}

# Columns may have been added, but all that was shown is shown.
shows_the_same() {
	local lost
	lost=$(run_psql -d "$1" -At -c "WITH now AS ($(cat "$source/test/keeping/show.sql"))
		SELECT what, row FROM kept_before b WHERE NOT EXISTS (SELECT FROM now n WHERE n.what = b.what AND n.row @> b.row)
		UNION ALL SELECT 'rows', to_jsonb(count(*)) FROM now HAVING count(*) <> (SELECT count(*) FROM kept_before)")
	[ -z "$lost" ] || { echo "$lost"; return 1; }
}

goes_on() {
	diff <(script_in "$1" go_on) "$source/test/keeping/go_on.out"
}

# By the exit status of each part, for check() runs it where errors do not end it
is_intact() {
	local amcheck
	amcheck=$(run_psql -d "$1" -At -f "$source/test/keeping/check.sql") || return 1
	[ -z "$(tr -d '\n' <<<"$amcheck")" ] || { echo "$amcheck"; return 1; }
}

# ---------- The extension ----------

same_schema() {
	diff <(script_in "$1" schema) <(script_in fresh schema)
}

# upgrade_from VERSION DATABASE
upgrade_from() {
	local old=$1 database=$2
	run_psql -d postgres -c "CREATE DATABASE $database"
	run_psql -d "$database" -c "CREATE EXTENSION trigger_idem VERSION '$old'"
	check "from $old: the new library serves the old SQL" fill "$database"
	run_psql -d "$database" -c "ALTER EXTENSION trigger_idem UPDATE"
	check "from $old: the views show what they did" shows_the_same "$database"
	check "from $old: the schema equals a fresh one" same_schema "$database"
	check "from $old: it goes on" goes_on "$database"
	check "from $old: amcheck finds nothing" is_intact "$database"
}

# The scripts of released versions are what they were.
are_unchanged() {
	(cd "$source/src/upgrade" && sha256sum --quiet -c SHA256SUMS) &&
		[ "$(cd "$source/src/upgrade" && printf '%s\n' *.sql)" = "$(awk '{ print $2 }' "$source/src/upgrade/SHA256SUMS" | sort)" ]
}

test_extension() {
	local scripts="$destdir/usr/share/postgresql/15/extension" file old n=0
	run_psql -d postgres -c 'CREATE DATABASE fresh'
	run_psql -d fresh -c 'CREATE EXTENSION trigger_idem'

	for file in "$source"/src/upgrade/trigger_idem--*.sql; do
		[ -e "$file" ] || continue
		old=$(sed -nE 's/.*trigger_idem--([^-]+)\.sql$/\1/p' <<<"$file")
		if [ "$old" = "$newest" ]; then
			check "the script of $newest, which is released, is as it was" cmp "$file" "$source/trigger_idem--$newest.sql"
		elif [ -n "$old" ]; then
			n=$((n + 1))
			upgrade_from "$old" "upgraded_$n"
		fi
	done
	[ ! -e "$source/src/upgrade" ] || check "released scripts are unchanged" are_unchanged

	# the same with a version that differs in nothing, so that this is tested before
	# the first release, and with one whose upgrade leaves something behind
	as_user cp "$scripts/trigger_idem--$newest.sql" "$scripts/trigger_idem--same.sql"
	as_user cp "$scripts/trigger_idem--$newest.sql" "$scripts/trigger_idem--other.sql"
	as_user tee "$scripts/trigger_idem--same--$newest.sql" </dev/null
	echo "COMMENT ON TABLE trigger_idem.run IS 'of an old version'; DELETE FROM trigger_idem.step;
		UPDATE trigger_idem.run SET tags = NULL;" | as_user tee "$scripts/trigger_idem--other--$newest.sql" >/dev/null
	upgrade_from same upgraded_same
	run_psql -d postgres -c 'CREATE DATABASE upgraded_other'
	run_psql -d upgraded_other -c "CREATE EXTENSION trigger_idem VERSION 'other'"
	fill upgraded_other
	run_psql -d upgraded_other -c 'ALTER EXTENSION trigger_idem UPDATE'
	check "an upgrade that leaves another schema is noticed" fails same_schema upgraded_other
	check "one that loses something is noticed" fails shows_the_same upgraded_other
	check "and so is what does not go on" fails goes_on upgraded_other
}

fails() {
	! "$@"
}

run_extension() {
	need_packages postgresql-15 postgresql-server-dev-15 make gcc libc6-dev
	make_workplace
	use_server 15 /usr/lib/postgresql/15/bin
	install_build COPT="-Werror -DUSE_ASSERT_CHECKING"
	start_server
	step "upgrade of the extension" 15 test_extension
	test_server_log
	finish
}

# ---------- The server ----------

is_closed() {
	local open
	open=$(run_psql -d "$1" -At -c "SELECT oid::regprocedure::text FROM pg_proc
			WHERE pronamespace = 'trigger_idem'::regnamespace AND has_function_privilege('stranger', oid, 'EXECUTE')
		UNION ALL SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'trigger_idem'::regnamespace AND relkind IN ('r', 'v')
			AND (has_table_privilege('stranger', oid, 'SELECT') OR has_any_column_privilege('stranger', oid, 'SELECT'))
		UNION ALL SELECT 'trigger_idem' WHERE has_schema_privilege('stranger', 'trigger_idem', 'USAGE')")
	[ -z "$open" ] || { echo "$open"; return 1; }
}

# In the root: from the programs of 15, with the extension in ./extra, to its own
test_server() {
	local old=/usr/lib/postgresql/15/bin old_conf=$work/old.conf
	cat >"$old_conf" <<-CONF
		fsync = off
		extension_destdir = '$checkout/extra'
		dynamic_library_path = '$checkout/extra/usr/lib/postgresql/15/lib:\$libdir'
	CONF
	use_server 15 "$old"
	cp "$old_conf" "$work/server.conf"
	start_server
	run_psql -d postgres -c 'CREATE DATABASE kept'
	run_psql -d kept -c 'CREATE EXTENSION trigger_idem'
	fill kept
	stop_server fast
	mv "$work/data" "$work/old_data"

	use_server 17 /usr/lib/postgresql/17/bin
	as_user "$pg_bin/initdb" -D "$work/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 -N >/dev/null
	as_user tee -a "$work/data/postgresql.conf" <"$work/server.conf" >/dev/null
	# shellcheck disable=SC2016 # the inner shell's
	check "pg_upgrade from 15 to 17" as_user sh -c 'cd "$1" && shift && exec "$@"' _ "$work/upgrade" \
		"$pg_bin/pg_upgrade" -U postgres -b "$old" -B "$pg_bin" -d "$work/old_data" -D "$work/data" --socketdir "$socket"
	as_user "$pg_bin/pg_ctl" -D "$work/data" -l "$work/data/server.log" -s -w \
		-o "-c listen_addresses='' -c unix_socket_directories='$socket' -c log_line_prefix='%m [%p] %e '" start
	check "the views show the same" shows_the_same kept
	check "it goes on" goes_on kept
	check "amcheck finds nothing" is_intact kept
	run_psql -d postgres -c 'CREATE ROLE stranger'
	check "nothing is granted to PUBLIC" is_closed kept
	test_server_log
}

run_server_in_root() {
	make_workplace
	mkdir "$work/upgrade"
	give "$work/upgrade"
	use_server 17 /usr/lib/postgresql/17/bin
	install_build COPT="-Werror -DUSE_ASSERT_CHECKING"
	step "pg_upgrade" "15 to 17" test_server
	finish
}

run_server() {
	need_packages postgresql-15 postgresql-server-dev-15 make gcc libc6-dev mmdebstrap debian-archive-keyring
	need_root 17
	need_old_server 17
	make_workplace
	use_server 15 /usr/lib/postgresql/15/bin
	install_build COPT="-Werror -DUSE_ASSERT_CHECKING"
	extra=$root
	# a shell of its own, for it cleans up at its end
	(run_checkout 17 test/upgrade.sh --in-root)
}

case ${1:-all} in
extension) run_extension ;;
server) run_server ;;
--in-root) run_server_in_root ;;
all)
	status=0
	totals=$(for part in extension server; do
		"$checkout/test/upgrade.sh" "$part" | tee /dev/stderr | tail -n 1
	done)
	read -r passed failed < <(awk '{ passed += $1; failed += $3 } END { print passed, failed }' <<<"$totals")
	[ "$(grep -c ' passed, ' <<<"$totals")" -eq 2 ] || failed=$((failed + 1))
	finish
	;;
*)
	echo "usage: test/upgrade.sh [extension|server]" >&2
	exit 2
	;;
esac
