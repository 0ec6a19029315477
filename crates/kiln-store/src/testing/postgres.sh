# A PostgreSQL that lives as long as whoever holds this shell's standard input:
#
#   postgres.sh PROGRAMS [PORT [durable]]
#
# Says the directory of its socket when it answers. With a port it listens there too, on
# loopback, for passwords and TLS only; `ca.pem` in the directory signed its certificate.
# With `durable` a commit is on the disk, as in life: for benchmarks.
# Does what lines of its input say, and says `done` after each.
set -eu
cd /
programs=$1 port=${2-} durable=${3-}
dir=$(mktemp -d /tmp/kiln-postgres.XXXXXX)
trap 'rm -rf "$dir"' EXIT

# Who fails tells what was said.
quietly() {
	if ! "$@" >"$dir/log" 2>&1 </dev/null; then
		cat "$dir/log" >&2
		exit 1
	fi
}

# An authority, and what it signed for 127.0.0.1.
certify() {
	quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-keyout "$dir/ca.key" -out "$dir/ca.pem" -subj "/CN=tests of kiln"
	quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-keyout "$dir/own.key" -out "$dir/own.pem" -subj "/CN=localhost" \
		-CA "$dir/ca.pem" -CAkey "$dir/ca.key" -addext "subjectAltName=IP:127.0.0.1" \
		-addext "basicConstraints=critical,CA:FALSE"
	chmod 600 "$dir/own.key"
	chmod 755 "$dir"
	printf '%s\n' "local all all trust" "hostssl all all 127.0.0.1/32 scram-sha-256" \
		>"$dir/data/pg_hba.conf"
}

# Starts it and waits until it answers. Nothing must outlive the tests.
start() {
	"$programs/postgres" -D "$dir/data" -k "$dir" -c max_connections=400 -c fsync=off \
		-c shared_buffers=32MB "$@" >>"$dir/log" 2>&1 </dev/null &
	server=$!
	until "$programs/pg_isready" -q -h "$dir" ${port:+-p "$port"}; do
		if ! kill -0 $server 2>/dev/null; then
			cat "$dir/log" >&2
			exit 1
		fi
		sleep 0.1
	done
}

# In parts of it or whole.
each() {
	for one in $server $(cat "/proc/$server/task/$server/children"); do
		kill "-$1" "$one" 2>/dev/null || :
	done
}

quietly "$programs/initdb" -D "$dir/data" -U kiln -A trust -E UTF8 --locale=C --no-sync
if [ -n "$port" ]; then
	certify
	set -- -c listen_addresses=127.0.0.1 -c port="$port" -c ssl=on \
		-c ssl_cert_file="$dir/own.pem" -c ssl_key_file="$dir/own.key"
else
	set -- -c listen_addresses=
fi
if [ -n "$durable" ]; then
	set -- "$@" -c fsync=on -c shared_buffers=256MB
fi
start "$@"
trap 'each CONT; kill -QUIT $server 2>/dev/null; wait $server || :; rm -rf "$dir"' EXIT
printf '%s\n' "$dir"
while read -r word; do
	case $word in
	stop) kill -INT $server && wait $server || : ;;
	kill)
		each KILL
		wait $server || :
		rm -f "$dir/data/postmaster.pid"
		;;
	start) start "$@" ;;
	freeze) each STOP ;;
	go-on) each CONT ;;
	esac
	echo done
done
