#!/usr/bin/env bash
# trigger_idem's main job, from an empty machine to the result:
#
#	test/demo/run.sh [FILE]
#
# FILE has one delivery a line: {"delivery": ID, "event": TEXT, "payload": OBJECT}.
#
# This part installs the packages and makes a copy of the source in a temporary
# folder; demo.sh does the rest there, as a user who may run a server.  That is
# you, or postgres if you are root: PostgreSQL refuses to run as root, and
# postgres may not be able to read the folder that this file is in.
set -euo pipefail

checkout=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
readonly checkout

# shellcheck source=test/setup.sh
. "$checkout/test/setup.sh"

die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

as_server_user() {
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
	else
		"$@"
	fi
}

# A folder of the server's user.  TMPDIR may be private to root.
make_folder() {
	as_server_user mktemp -d -t trigger_idem.XXXXXX 2>/dev/null ||
		as_server_user mktemp -d /tmp/trigger_idem.XXXXXX
}

check_file() {
	[ -e "$1" ] || die "$1: no such file"
	[ -f "$1" ] || die "$1: not a regular file"
	[ -r "$1" ] || die "$1: you may not read this file"
	[ -s "$1" ] || die "$1: the file is empty"
}

case "$#,${1-}" in
	1,-h | 1,--help)
		echo "usage: test/demo/run.sh [FILE]    FILE: deliveries, one JSON object a line"
		exit 0
		;;
	0,* | 1,?*) file=${1:-$checkout/test/demo/deliveries.jsonl} ;;
	*) die "usage: test/demo/run.sh [FILE]" ;;
esac
check_file "$file"

need_packages postgresql-15 postgresql-server-dev-15 postgresql-plperl-15 make gcc libc6-dev perl

folder=$(make_folder)
trap 'as_server_user rm -rf "$folder"' EXIT
as_server_user mkdir "$folder/source"
tar -C "$checkout" --exclude='*.o' --exclude='*.bc' -cf - Makefile trigger_idem.control src test/demo |
	as_server_user tar -C "$folder/source" -xf -
as_server_user tee "$folder/deliveries.jsonl" <"$file" >/dev/null

# From here on demo.sh does the clean-up.  It starts from an empty environment:
# no PGOPTIONS, MAKEFLAGS or http_proxy of ours reaches what it runs.
cd "$folder"
start=(env -i PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin LC_ALL=C.UTF-8 HOME="$folder" TMPDIR="$folder"
	bash "$folder/source/test/demo/demo.sh" "$folder" "$file")
if [ "$(id -u)" -eq 0 ]; then
	exec setpriv --reuid=postgres --regid=postgres --init-groups -- "${start[@]}"
fi
exec "${start[@]}"
