# shellcheck shell=bash
# A PostgreSQL built from Debian's source with assertions and valgrind's
# requests, kept between runs.  To be sourced after test/lib.sh and test/suites.sh:
#
#	use_assertion_server
#
# Kept as test/roots.sh keeps the roots: built when missing or of another
# recipe, under a lock.
# shellcheck disable=SC2154	# test/lib.sh sets them

: "${cache:?}"

# What building it needs
source_packages=(build-essential dpkg-dev libc6-dev valgrind libipc-run-perl perl bzip2 xz-utils)

# private_apt FOLDER COMMAND...: an apt that knows the sources of this machine's
# packages, without touching the machine's own lists
private_apt() {
	local folder=$1
	shift
	mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
	if [ -e /etc/apt/sources.list.d/debian.sources ]; then
		sed 's/^Types: .*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$folder/src.sources"
	else
		sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$folder/src.list"
	fi
	"$@" -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" \
		-o Dir::Etc::sourcelist="$(echo "$folder"/src.*)" -o Dir::Etc::sourceparts=/dev/null \
		-o Acquire::http::Timeout=20 -o Acquire::Retries=3 -o APT::Sandbox::User=root
}

# fetch_source FOLDER: the newest source of 15 that can be had, unpacked to
# FOLDER/source.  The newest patch release may be listed, but not there.
fetch_source() {
	local folder=$1 version
	private_apt "$folder" apt-get -qq update || return 1
	for version in $(private_apt "$folder" apt-cache showsrc postgresql-15 | sed -n 's/^Version: //p' | sort -uVr); do
		(cd "$folder" && private_apt "$folder" apt-get -qq source --download-only "postgresql-15=$version") || continue
		mkdir -p "$folder/source"
		tar -xf "$(echo "$folder"/postgresql-15_*.orig.tar.*)" -C "$folder/source" --strip-components=1
		return
	done
	return 1
}

# build_assertion_server PREFIX FOLDER
build_assertion_server() {
	local prefix=$1 folder=$2
	fetch_source "$folder" || return 1
	cd "$folder/source" &&
		./configure -q --prefix="$prefix" --enable-cassert --enable-debug --enable-tap-tests \
			--without-icu --without-readline --without-zlib \
			CFLAGS="-O1 -g -fno-omit-frame-pointer -DUSE_VALGRIND" &&
		make -s -j"$(nproc)" &&
		make -s install &&
		make -s -C src/test/isolation install &&
		for module in amcheck dblink pg_stat_statements pgcrypto; do
			make -s -C "contrib/$module" install || return
		done &&
		cp src/tools/valgrind.supp "$prefix/"
}

# Sets $assertion_server, its prefix.
need_assertion_server() {
	local recipe lock folder
	assertion_server=$cache/server-15-assertions
	recipe=$({ declare -f build_assertion_server fetch_source private_apt; dpkg-query -W postgresql-15; } | sha256sum)
	mkdir -p "$cache"
	exec {lock}>"$assertion_server.lock"
	flock -s "$lock"
	[ "$(cat "$assertion_server.recipe" 2>/dev/null)" != "$recipe" ] || return 0

	flock "$lock"
	if [ "$(cat "$assertion_server.recipe" 2>/dev/null)" != "$recipe" ]; then
		need_space 1500 || return 1
		folder=$cache/source
		rm -rf "$assertion_server" "$assertion_server.recipe" "$folder"
		mkdir "$folder"
		if (build_assertion_server "$assertion_server" "$folder") >"$assertion_server.log" 2>&1; then
			echo "$recipe" >"$assertion_server.recipe"
		else
			echo "The server with assertions cannot be built:"
			tail -n 20 "$assertion_server.log"
			rm -rf "$assertion_server" "$folder"
			return 1
		fi
		rm -rf "$folder"
	fi
	flock -s "$lock"
}

# As use_server() does: a copy in the workplace, for the extension is installed into it
use_assertion_server() {
	need_packages "${source_packages[@]}"
	need_assertion_server
	cp -a "$assertion_server" "$work/server"
	give "$work/server"
	use_server 15 "$work/server/bin"
}
