# shellcheck shell=sh
# Installing Debian packages, for the demo and the tests.  To be sourced:
#
#	. test/setup.sh
#	need_packages make gcc

# Is every one of these packages installed?
packages_are_installed() {
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || return 1
	done
}

# Run a command as root, through sudo where we are somebody else.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# apt-get that asks nothing and waits for another one to finish.
quiet_apt_get() {
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# Make sure that these packages are installed; does nothing, and needs no
# rights, where they are.  Fails with apt-get's own words.
need_packages() {
	if packages_are_installed "$@"; then
		return 0
	fi
	if ! command -v apt-get >/dev/null; then
		echo "This needs Debian's packages $*, and there is no apt-get here." >&2
		return 1
	fi
	if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
		echo "Some packages are missing and there is no sudo. As root, run:" >&2
		echo "  apt-get install --no-install-recommends $*" >&2
		return 1
	fi

	echo "Installing with apt-get what is missing of: $*"
	# lists that could not be refreshed may still do: the install decides
	if ! apt_output=$({ quiet_apt_get update; quiet_apt_get install --no-install-recommends "$@"; } 2>&1); then
		printf '%s\n' "$apt_output" >&2
		return 1
	fi
}
