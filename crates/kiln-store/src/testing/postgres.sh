# A PostgreSQL that lives as long as whoever holds this shell's standard input.
# Says the directory of its socket when it answers.
set -eu
cd /
dir=$(mktemp -d /tmp/kiln-postgres.XXXXXX)
trap 'rm -rf "$dir"' EXIT
if ! "$1/initdb" -D "$dir/data" -U kiln -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 </dev/null; then
	cat "$dir/log" >&2
	exit 1
fi
# No port, and nothing that must outlive the tests.
"$1/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c max_connections=400 \
	-c fsync=off -c shared_buffers=32MB >>"$dir/log" 2>&1 </dev/null &
server=$!
trap 'kill -QUIT $server 2>/dev/null; wait $server; rm -rf "$dir"' EXIT
until "$1/pg_isready" -q -h "$dir"; do
	if ! kill -0 $server 2>/dev/null; then
		cat "$dir/log" >&2
		exit 1
	fi
	sleep 0.1
done
printf '%s\n' "$dir"
read -r _ || :
