# What an image's `functions` finds around it (reference: builds.sr.ht's
# `control`). Run as: sh -c THIS kiln FUNCTION [ARGUMENT...], in the image's
# directory, in a namespace without network. Variables come from the caller's
# environment, which is empty but for them.
#
# Standard output is the job's log, or kiln's reading end for a query;
# standard error is the operator's.
self="$base/control"
exec 3>&1

_kiln_variables() {
	for _kiln_name in qemu driveopts MEMORY guestport default_arch; do
		eval "_kiln_value=\${$_kiln_name-}"
		if [ -n "$_kiln_value" ]; then
			printf '%s=%s\0' "$_kiln_name" "$_kiln_value" >&3
		fi
	done
}

# `boot` must end here. kiln checks the arguments and starts QEMU itself.
_boot() {
	_kiln_variables
	for _kiln_word in "$@"; do
		printf 'argument=%s\0' "$_kiln_word" >&3
	done
	printf 'booted=1\0' >&3
	exit 0
}

# The processor and the machine; the accelerator is kiln's to choose.
cpu_opts() {
	case "$1" in
	x86_64 | amd64) printf '%s' '-M q35' ;;
	aarch64 | arm64) printf '%s' '-M virt' ;;
	ppc64le) printf '%s' '-M pseries' ;;
	*) ;;
	esac
	case "$1:$_kiln_accel" in
	*:kvm) printf ' -cpu host' ;;
	ppc64le:*) printf ' -cpu POWER9' ;;
	*) printf ' -cpu max' ;;
	esac
}

# A command in the guest. Its errors go to the log beside its output.
guest_ssh() {
	"$_kiln" __control "$_kiln_socket" ssh "$@" 2>&3
}

cmd_boot() {
	"$_kiln" __control "$_kiln_socket" boot "$@"
}

_wait_boot() {
	"$_kiln" __control "$_kiln_socket" wait "$@"
}

cmd_cleanup() {
	"$_kiln" __control "$_kiln_socket" cleanup "$@"
}

wd="$PWD"
. ./functions

case "$1" in
_kiln_query)
	# Nothing that the file says on its own is an answer.
	exec 1>&2
	_kiln_variables
	;;
boot)
	exec 1>&2
	boot
	;;
*)
	_kiln_function="$1"
	shift
	if ! command -v "$_kiln_function" >/dev/null; then
		echo "the image has no function $_kiln_function" >&2
		exit 127
	fi
	"$_kiln_function" "$@"
	;;
esac
