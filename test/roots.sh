# shellcheck shell=bash
# Minimal Debian roots with other versions of PostgreSQL, kept between runs.
# To be sourced after test/lib.sh and test/setup.sh:
#
#	need_root 17 || exit 1
#	in_root 17 COMMAND...
#
# A root is built when it is missing or was built by another recipe.  Two runs
# may ask for the same one at a time: who builds has its lock alone, who uses it
# shares the lock until the process ends.

: "${checkout:?}" "${cache:?}"

# Where Debian has which version; 19's candidate is laid over the root of 18
declare -A root_suite=([17]=trixie [18]=sid [19]=sid)

root_of() {
	printf '%s/root-%s' "$cache" "$1"
}

# What the tests need in there.  The development package is unpacked, not
# installed, for it depends on a whole clang.
root_packages() {
	printf '%s,' "postgresql-$1" "postgresql-$1-pgtap" "postgresql-$1-cron" "postgresql-plpython3-$1" "postgresql-plperl-$1" \
		libtap-parser-sourcehandler-pgtap-perl libipc-run-perl make gcc libc6-dev libpq-dev libssl-dev procps pgbouncer python3
	printf 'nodejs,node-pg\n'
}

# The mirror that this machine uses itself
debian_mirror() {
	awk '/^URIs:/ { print $2; exit } /^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^(https?|file):/) { print $i; exit } }' \
		/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null
}

root_apt_options=(Acquire::Check-Valid-Until=false Acquire::http::Timeout=20 Acquire::Retries=3 APT::Install-Recommends=false)

# make_root VERSION DIRECTORY
make_root() {
	local version=$1 directory=$2 option options=()
	if [ "$version" -eq 19 ]; then
		make_candidate_root "$directory"
		return
	fi
	for option in "${root_apt_options[@]}"; do
		options+=(--aptopt="${option%%=*} \"${option#*=}\"")
	done
	# shellcheck disable=SC2016 # $1 is the hook's
	timeout 600 mmdebstrap --quiet --mode=root --variant=minbase --include="$(root_packages "$version")" \
		--dpkgopt=force-unsafe-io "${options[@]}" --skip=cleanup/apt \
		--essential-hook='printf "#!/bin/sh\nexit 101\n" > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"' \
		--customize-hook='chroot "$1" sh -ec "cd /tmp && apt-get download postgresql-server-dev-'"$version"' && dpkg-deb -x postgresql-server-dev-'"$version"'_*.deb / && rm -f *.deb && apt-get clean"' \
		"${root_suite[$version]}" "$directory" "deb $(debian_mirror) ${root_suite[$version]} main"
}

# The release candidate, over a copy of the root of 18
make_candidate_root() {
	local directory=$1 option options=()
	need_root 18 || return 1
	for option in "${root_apt_options[@]}"; do
		options+=(-o "$option")
	done
	cp -a "$(root_of 18)" "$directory" || return 1
	echo "deb $(debian_mirror) experimental main" >"$directory/etc/apt/sources.list.d/experimental.list"
	timeout 300 chroot "$directory" env DEBIAN_FRONTEND=noninteractive sh -ec "
		apt-get ${options[*]} -qq update
		apt-get ${options[*]} -qq -y -t experimental install postgresql-19 postgresql-plpython3-19 postgresql-plperl-19
		cd /tmp
		apt-get ${options[*]} -qq -t experimental download postgresql-server-dev-19
		dpkg-deb -x postgresql-server-dev-19_*.deb /
		rm -f ./*.deb
		apt-get clean"
}

# need_root VERSION: make sure that its root is there, and keep others from
# replacing it until this process ends.
need_root() {
	local version=$1 root recipe lock tries
	if [ "$(id -u)" -ne 0 ]; then
		echo "A root of another version needs root's rights." >&2
		return 1
	fi
	root=$(root_of "$version")
	recipe=$({ declare -f make_root make_candidate_root; root_packages "$version"; debian_mirror; } | sha256sum)
	mkdir -p "$cache"
	exec {lock}>"$root.lock"
	flock -s "$lock"
	[ "$(cat "$root.recipe" 2>/dev/null)" != "$recipe" ] || return 0

	flock "$lock"
	if [ "$(cat "$root.recipe" 2>/dev/null)" != "$recipe" ]; then
		need_space 3000 || return 1
		for tries in 1 2; do
			rm -rf "$root" "$root.new" "$root.recipe"
			if make_root "$version" "$root.new" >"$root.log" 2>&1; then
				mv "$root.new" "$root"
				echo "$recipe" >"$root.recipe"
				break
			fi
		done
		rm -rf "$root.new"
		if [ ! -e "$root.recipe" ]; then
			echo "The root of PostgreSQL $version cannot be built ($tries tries):"
			tail -20 "$root.log"
			return 1
		fi
	fi
	flock -s "$lock"
}

# in_root VERSION COMMAND...: with /proc and /dev/shm where we may mount them, which
# go with the last process of the command
in_root() {
	local root
	root=$(root_of "$1")
	shift
	if unshare --mount true 2>/dev/null; then
		# shellcheck disable=SC2016 # the inner shell's
		unshare --mount sh -c 'mount -t proc proc "$1/proc"; mount -t tmpfs tmpfs "$1/dev/shm"; exec chroot "$@"' _ "$root" "$@"
	else
		chroot "$root" "$@"
	fi
}

# run_checkout VERSION COMMAND...: the same, in a copy of the checkout, for a root
# sees nothing outside; and with $extra, a folder, as "extra" in it.  The copy
# is gone afterwards.
run_checkout() {
	local version=$1 root place status=0
	shift
	root=$(root_of "$version")
	place=$(mktemp -d "$root/tmp/trigger_idem_checkout.XXXXXX")
	# shellcheck disable=SC2064 # this place
	trap "rm -rf '$place'" EXIT
	chmod 755 "$place"
	tar -C "$checkout" -cf - --exclude=.git . | tar -xf - -C "$place"
	[ -z "${extra:-}" ] || cp -a "$extra" "$place/extra"
	# shellcheck disable=SC2016 # the inner shell's
	in_root "$version" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		TRIGGER_IDEM_TABLE="${TRIGGER_IDEM_TABLE:+${place#"$root"}/table}" \
		sh -c 'cd "$1" && shift && exec "$@"' _ "${place#"$root"}" "$@" || status=$?
	if [ -n "${TRIGGER_IDEM_TABLE:-}" ] && [ -e "$place/table" ]; then
		cat "$place/table" >>"$TRIGGER_IDEM_TABLE"
	fi
	rm -rf "$place"
	return "$status"
}

# The programs of this machine's PostgreSQL 15 in a root, for pg_upgrade, with the
# libraries that are not there in the same version
need_old_server() {
	local root lock library
	root=$(root_of "$1")
	exec {lock}>"$root.old.lock"
	flock "$lock"
	if ! cmp -s /usr/lib/postgresql/15/bin/postgres "$root/usr/lib/postgresql/15/bin/postgres"; then
		mkdir -p "$root/usr/lib/postgresql" "$root/usr/share/postgresql"
		rm -rf "$root/usr/lib/postgresql/15" "$root/usr/share/postgresql/15"
		cp -a /usr/share/postgresql/15 "$root/usr/share/postgresql/"
		ldd /usr/lib/postgresql/15/bin/* | awk '$2 == "=>" { print $3 }' | sort -u | while read -r library; do
			[ -e "$root$library" ] || [ -e "$root/usr$library" ] || cp -L "$library" "$root/usr/lib/$(uname -m)-linux-gnu/"
		done
		# last, for it says that all of it is there
		cp -a /usr/lib/postgresql/15 "$root/usr/lib/postgresql/"
		chroot "$root" ldconfig
	fi
	flock -u "$lock"
}
