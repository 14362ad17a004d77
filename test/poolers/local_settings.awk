# Makes a file of the regression suite, or of what it is expected to print, one for
# clients whose transactions each come to another session: what is set until it is
# reset is set in a transaction that ends there.

function all_of_them(name, text) {
	text = ""
	for (name in set)
		text = text " " set[name]
	return text
}

# the name of what a line sets or resets
function name_of(line) {
	sub(/^(SET|RESET) /, "", line)
	sub(/[ ;].*/, "", line)
	return line
}

!in_block && /^SET [^;]*;$/ {
	name = name_of($0)
	sub(/^SET/, "SET LOCAL")
	begin = length(set) == 0 ? "BEGIN; " : ""
	set[name] = $0
	print begin $0
	next
}

!in_block && /^RESET [^;]*;$/ && name_of($0) in set {
	delete set[name_of($0)]
	print length(set) == 0 ? "COMMIT;" : $0
	next
}

# transactions of the file's own
!in_block && /^BEGIN[^;]*;$/ {
	in_block = 1
	print length(set) == 0 ? $0 : "COMMIT; " $0 all_of_them()
	next
}
in_block && /^(COMMIT|ROLLBACK|PREPARE TRANSACTION[^;]*);$/ {
	in_block = 0
	print length(set) == 0 ? $0 : $0 " BEGIN;" all_of_them()
	next
}

{ print }
