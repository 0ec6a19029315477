# Run in a network of its own, the server's; ends when its standard input does. Says
#
#   ready PID-OF-THE-SERVER'S PID-OF-THE-WORKER'S PID-OF-NOWHERE'S
#
# From the worker's network leads one way to one port of the server's.
own=$(readlink /proc/self/ns/net)

# Starts something in a network of its own and waits until it is there.
network() {
	unshare --net sleep infinity </dev/null >/dev/null &
	made=$!
	until [ "$(readlink "/proc/$made/ns/net")" != "$own" ]; do :; done
	nsenter --target "$made" --net ip link set lo up
}

ip link set lo up
network
worker=$made
network
nowhere=$made
trap 'kill "$worker" "$nowhere"' EXIT
ip link add server type veth peer name worker netns "$worker"
ip addr add 10.77.0.1/24 dev server
ip link set server up
nsenter --target "$worker" --net ip addr add 10.77.0.2/24 dev worker
nsenter --target "$worker" --net ip link set worker up
nft -f - <<'RULES'
table ip farm {
	chain input {
		type filter hook input priority 0; policy accept;
		iifname "server" tcp dport 8080 accept
		iifname "server" drop
	}
}
RULES
echo "ready $$ $worker $nowhere"
cat
