# shellcheck shell=bash
# What the test commands have in common: a place to work in, counting, and the
# table of results.  To be sourced; needs $checkout, test/run.sh's folder's parent.
#
# Every command prints "N passed, N failed" as its last line, by finish().  Where
# TRIGGER_IDEM_TABLE names a file, each step() adds its line to it: check,
# version, result and seconds, with tabs between them.  With TRIGGER_IDEM_KEEP
# set, logs and data stay for a look.

: "${checkout:?}"
# shellcheck source=test/setup.sh
. "$checkout/test/setup.sh"

# Servers and roots that are kept between runs
cache=${TRIGGER_IDEM_CACHE:-/var/cache/trigger_idem_test}

passed=0
failed=0

# ---------- The place to work in ----------

# Sets $work and the folders in it; they go with the process.
make_workplace() {
	work=$(mktemp -d /tmp/trigger_idem_test.XXXXXX)
	source=$work/source		# a copy of the checkout, for the server's user
	root=$work/root			# where the build is installed
	socket=$work/socket
	log=$work/log
	trap clean_up EXIT
	trap 'exit 1' HUP INT TERM

	mkdir -p "$source" "$root" "$socket" "$log"
	(cd "$checkout" && tar -cf - --exclude=.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' .) |
		tar -xf - -C "$source"
	give "$work"
	chmod 755 "$work"
}

clean_up() {
	stop_server || true
	if [ -n "${TRIGGER_IDEM_KEEP:-}" ]; then
		echo "kept: $work"
	else
		rm -rf "$work"
	fi
}

# PostgreSQL refuses to run as root.
as_user() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

# Make files those of the user that as_user is.
give() {
	if [ "$(id -u)" -eq 0 ]; then
		chown -R postgres "$@"
	fi
}

# need_space MEGABYTES: is there so much left where the cache is?
need_space() {
	local free
	free=$(df --output=avail -m "$cache" | tail -n 1)
	if [ "$free" -lt "$1" ]; then
		echo "$cache needs $1 MB, but only $free MB are free." >&2
		return 1
	fi
}

# ---------- Results ----------

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
		tail -n 50 "$log/check"
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
		grep -E "$4" "$file" || tail -n 50 "$file"
	fi
}

# add_result CHECK VERSION RESULT SECONDS: a line of the table
add_result() {
	[ -z "${TRIGGER_IDEM_TABLE:-}" ] || printf '%s\t%s\t%s\t%s\n' "$@" >>"$TRIGGER_IDEM_TABLE"
}

# step NAME VERSION COMMAND...: a part of a test command, with a line of its own
# in the table.  The command counts its tests itself.
step() {
	local name=$1 version=$2 before_passed=$passed before_failed=$failed since=$SECONDS result
	shift 2
	title "$name, PostgreSQL $version"
	"$@"
	result="$((passed - before_passed)) passed"
	[ "$failed" -eq "$before_failed" ] || result+=", $((failed - before_failed)) FAILED"
	add_result "$name" "$version" "$result" $((SECONDS - since))
}

# The last line, and the status of the command
finish() {
	printf '\n%s passed, %s failed\n' "$passed" "$failed"
	[ "$failed" -eq 0 ]
}
