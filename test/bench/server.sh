# shellcheck shell=bash
# A throw-away server with the extension, for the scripts of this folder.  To be
# sourced, with the settings that the server shall have besides in $server_conf:
#
#	become_postgres "$0" "$@"
#	start_server

pg_config=${PG_CONFIG:-pg_config}
bin=$("$pg_config" --bindir)
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$(mktemp -d)

cleanup() {
	if [ -f "$dir/data/postmaster.pid" ]; then
		"$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

copy_source() {
	mkdir "$dir/source"
	tar -C "$source" --exclude=.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
		--exclude=tmp_check -cf - . | tar -C "$dir/source" -xf -
}

# become_postgres SCRIPT ARGUMENT...: the server refuses to run as root.
become_postgres() {
	local script
	script=$(basename "$1")
	shift
	[ "$(id -u)" = 0 ] || return 0
	copy_source
	chown -R postgres "$dir"
	runuser -u postgres -- env PG_CONFIG="$pg_config" "$dir/source/test/bench/$script" "$@"
	exit
}

start_server() {
	unset "${!PG@}"
	export PGHOST=$dir PGPORT=5432 PGUSER=bench PGDATABASE=postgres
	copy_source
	make -s -C "$dir/source" PG_CONFIG="$pg_config" with_llvm=no \
		DESTDIR="$dir/install" install >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }

	"$bin/initdb" -D "$dir/data" -U bench -A trust -E UTF8 --locale=C >"$dir/log"
	cat >>"$dir/data/postgresql.conf" <<-EOF
	listen_addresses = ''
	unix_socket_directories = '$dir'
	dynamic_library_path = '$dir/install$("$pg_config" --pkglibdir):\$libdir'
	synchronous_commit = off
	max_wal_size = 8GB
	checkpoint_timeout = 1h
	autovacuum = off
	${server_conf:-}
	EOF
	if [ "$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 18 ]; then
		echo "extension_control_path = '$dir/install$("$pg_config" --sharedir):\$system'"
	else
		echo "extension_destdir = '$dir/install'"
	fi >>"$dir/data/postgresql.conf"
	"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null
}

quiet_psql() {
	"$bin/psql" -XqAt -v ON_ERROR_STOP=1 "$@"
}

median() {
	sort -g "$@" | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}
