# A Redis that is started and killed by words on standard input, and lives no longer than
# whoever holds that. $1 is its directory, which goes with it.
set -eu
server=
end() {
	[ -z "$server" ] || kill -KILL "$server" 2>/dev/null || :
	[ -z "$server" ] || wait "$server" 2>/dev/null || :
	server=
}
trap 'end; rm -rf "$1"' EXIT
while read -r word; do
	end
	if [ "$word" = start ]; then
		redis-server "$1/redis.conf" >>"$1/log" 2>&1 </dev/null &
		server=$!
	fi
	printf '%s\n' "$word"
done
