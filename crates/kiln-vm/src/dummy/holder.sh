# The holder of a dummy guest: bash -c THIS holder DIR MARK [WORD SCRIPT]…, see dummy.rs.
# It writes the guest's words, says so, repeats what it reads and, when its
# input ends, kills the guest's processes and itself.
dir=$1 mark=$2
shift 2

word() { printf '#!/bin/bash\n%s\n' "$2" >"$dir/words/$1"; }
mkdir -p "$dir/words" "$dir/home" || exit 1
word fail 'exit "$1"'
word hang 'exec sleep infinity'
word cut 'exit 197'
word full ": >'$dir/full'"
word overfill ": >'$dir/overfull'"
word garbage 'printf "\377\376\000garbage\r\033[31m\n"'
word flood 'end="\n"; [ "$2" = long ] && end=.
yes "$(printf "%0.s." {1..63})" | head -c "$1" | tr "\n" "$end"'
# A guest that goes tells its holder by the holder's own input.
word vanish "echo vanish >/proc/$$/fd/0; exec sleep infinity"
word panic "echo panic >/proc/$$/fd/0; exec sleep infinity"
while [ $# -gt 0 ]; do
	word "$1" "$2"
	shift 2
done
chmod 755 "$dir/words"/*

echo ready
while read -r line; do echo "$line"; done

# Once more after a kill that found something: it may have had children.
# (grep's status says little: processes end while it looks.)
while pids=$(grep -lszFx -- "$mark" /proc/[0-9]*/environ); [ -n "$pids" ]; do
	for pid in $pids; do
		pid=${pid#/proc/} pid=${pid%/environ}
		kill -KILL "$pid" 2>/dev/null
	done
done
rm -rf -- "$dir/words"
kill -KILL 0
