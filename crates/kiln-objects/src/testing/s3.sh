# An S3 server, and the directory with its files, that live as long as whoever holds this
# shell's standard input. Arguments: the port, the access key, the secret key.
# Says the directory, beside which is its log; then obeys lines with `start` and `kill`, and says when that is done.
set -eu
server=
stop() {
	if [ -n "$server" ]; then
		kill -KILL "$server" 2>/dev/null || :
		wait "$server" 2>/dev/null || :
		server=
	fi
}
dir=$(mktemp -d /tmp/kiln-s3-XXXXXX)
trap 'stop; rm -rf "$dir" "$dir.log"' EXIT
printf '%s\n' "$dir"
while read -r word; do
	stop
	if [ "$word" = start ]; then
		RUST_LOG=warn s3s-fs --host 127.0.0.1 --port "$1" --access-key "$2" --secret-key "$3" "$dir" \
			>>"$dir.log" 2>&1 </dev/null &
		server=$!
	fi
	printf 'done\n'
done
