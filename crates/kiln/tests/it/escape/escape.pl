# Tries to get out of a guest, as its root. The plan has a line for each attempt: NAME PORT KIND WORDS.
# All run at once; each ends with a line `escape NAME open|closed WHY`.
use strict;
use warnings;
use Socket qw(:all);

my ($interface) = grep { $_ ne "lo" } map { m{([^/]+)$} } glob "/sys/class/net/*";
my ($index, $mac) = (slurp("/sys/class/net/$interface/ifindex"), slurp("/sys/class/net/$interface/address"));
$mac = pack "H12", $mac =~ s/://gr;
# What QEMU's network answers to.
my $gateway = pack "H12", "52550a000202";
my $gateway6 = pack "H12", "525600000002";
my $everybody = "\xff" x 6;
my $own = "10.0.2.15";
# Seconds; a refusal comes at once.
our $patience = 5;

my ($name, $port, $mark);
my %kinds = (
	tcp => \&tcp, udp => \&udp, ping => \&ping, name => \&name, ports => \&ports, find => \&find,
	frame4 => sub { frames($_[1], \&watch4, map { [$gateway, 0x0800, $_] } packets4(@_)) },
	frame6 => sub {
		my @packets = packets6(@_);
		frames($_[1], \&watch6, map { my $to = $_; map { [$to, 0x86dd, $_] } @packets } $gateway6, $gateway, $everybody);
	},
	tunnel => sub {
		my ($protocol, $to, $source, $target) = @_;
		my @inner = $target =~ /:/ ? packets6($source, $target) : packets4($source, $target);
		# GRE has a header of its own.
		my $gre = $target =~ /:/ ? pack("nn", 0, 0x86dd) : pack("nn", 0, 0x0800);
		my @outer = map { ip4($own, $to, $protocol, ($protocol == 47 ? $gre : "") . $_) } @inner;
		frames($to, \&watch4, map { [$gateway, 0x0800, $_] } @outer);
	},
	vlan => sub { frames($_[1], \&watch4, map { [$gateway, 0x8100, pack("nn", 1, 0x0800) . $_] } packets4(@_)) },
	ether => sub { frames("0.0.0.0", \&watch4, [$everybody, hex $_[0], $mark . " " x 40]) },
);

open my $plan, "<", $ARGV[0] or die "$ARGV[0]: $!";
$| = 1;
while (my $line = <$plan>) {
	($name, $port, my $kind, my @words) = split " ", $line;
	$mark = "kiln-escape-$name ";
	next if fork;
	my $open = eval { local $SIG{ALRM} = sub { die "no answer\n" }; $kinds{$kind}->(@words) };
	my $why = $open // ($@ =~ s/ at \S+ line \d+\.?//r);
	print "escape $name ", defined $open ? "open" : "closed", " ", $why =~ s/\s+/ /gr, "\n";
	exit 0;
}
1 while wait != -1;
print "escape end\n";

sub slurp { open my $file, "<", $_[0] or die "$_[0]: $!"; local $/; my $text = <$file>; chomp $text; $text }

sub address { my ($error, $first) = getaddrinfo($_[0], $port, { flags => AI_NUMERICHOST, socktype => $_[1] }); die "$_[0]: $error" if $error; $first }

sub tcp {
	my $to = address($_[0], SOCK_STREAM);
	socket my $socket, $to->{family}, SOCK_STREAM, 0 or die "socket: $!";
	alarm $patience;
	connect $socket, $to->{addr} or die "$!\n";
	my $said = <$socket> // "nothing said";
	alarm 0;
	$said;
}

sub udp {
	my $to = address($_[0], SOCK_DGRAM);
	socket my $socket, $to->{family}, SOCK_DGRAM, 0 or die "socket: $!";
	setsockopt $socket, SOL_SOCKET, SO_BROADCAST, 1;
	alarm $patience;
	for (1 .. 2) { defined send $socket, $mark, 0, $to->{addr} or die "$!\n" }
	recv $socket, my $said, 100, 0;
	alarm 0;
	$said;
}

sub ping {
	socket my $socket, AF_INET, SOCK_RAW, 1 or die "socket: $!";
	my $echo = pack "CCnnna*", 8, 0, 0, $port, 1, $mark;
	substr $echo, 2, 2, pack "n", checksum($echo);
	alarm $patience;
	send $socket, $echo, 0, pack_sockaddr_in(0, inet_aton($_[0])) or die "$!\n";
	while (my $from = recv $socket, my $packet, 1000, 0) {
		my $answer = substr $packet, 20;
		return "echo" if ord $answer == 0 && index($answer, $mark) >= 0;
	}
	die "$!\n";
}

# The name must be found: an attempt that stops at DNS proves nothing.
sub name {
	my ($error, @found) = getaddrinfo($_[0], $port, { socktype => SOCK_STREAM });
	return "the name was not found: $error" if $error || !@found;
	my @said = map { my (undef, $address) = getnameinfo($_->{addr}, NI_NUMERICHOST, NIx_NOSERV); $address } @found;
	my ($address) = (getnameinfo($found[0]{addr}, NI_NUMERICHOST, NIx_NOSERV))[1];
	return tcp($address);
}

sub ports {
	my ($to, @ports) = @_;
	# So many don't fit into the test's time if none of them is refused at once.
	local $patience = 1;
	for my $each (@ports) {
		$port = $each;
		my $said = eval { tcp($to) };
		return "port $port: $said" if defined $said;
	}
	die "none of " . @ports . " ports\n";
}

# What a job has or the host knows, wherever this guest could see it.
sub find {
	my ($pattern) = @_;
	my @places = ("/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline", "/proc/cmdline", "/sys/class/dmi/id/*", "/sys/firmware/qemu_fw_cfg");
	my $files = `LC_ALL=C grep -rlsa -E '$pattern' @places /run /tmp /dev/shm /etc /home /root /var/log 2>/dev/null`;
	return $files if $files ne "";
	my $count = `head -c 200M /dev/vda | LC_ALL=C grep -ac -E '$pattern'`;
	chomp $count;
	return "$count times on the disk" if $count;
	die "nowhere\n";
}

# Sends frames and waits whether anybody answers.
sub frames {
	my ($from, $watch, @frames) = @_;
	socket my $socket, 17, SOCK_RAW, unpack "S", pack "n", 3 or die "socket: $!";
	bind $socket, pack "SnISCCa8", 17, 3, $index, 0, 0, 6, $mac or die "bind: $!";
	alarm $patience;
	send $socket, pack("a6a6na*", $_->[0], $mac, $_->[1], $_->[2]), 0 or die "send: $!" for @frames;
	while (defined recv $socket, my $frame, 2000, 0) {
		return "an answer of $from" if $watch->($from, unpack "x12na*", $frame);
	}
	die "$!\n";
}

# A UDP datagram, or a SYN that is taken.
sub answers { my ($protocol, $rest) = @_; ($protocol == 17 && unpack("x2n", $rest) == $port + 10000) || ($protocol == 6 && unpack("x2n", $rest) == $port + 10000 && (unpack("x13C", $rest) & 0x12) == 0x12) }

sub watch4 { my ($from, $kind, $packet) = @_; $kind == 0x0800 && substr($packet, 12, 4) eq inet_aton($from) && answers(ord substr($packet, 9, 1), substr $packet, 20) }

sub watch6 { my ($from, $kind, $packet) = @_; $kind == 0x86dd && substr($packet, 8, 16) eq inet_pton(AF_INET6, $from) && answers(ord substr($packet, 6, 1), substr $packet, 40) }

sub packets4 { my ($source, $target) = @_; map { ip4($source, $target, @$_) } transports(inet_aton($source) . inet_aton($target)) }

sub packets6 {
	my ($source, $target) = map { inet_pton(AF_INET6, $_) } @_;
	map { pack("NnCCa16a16", 6 << 28, length $_->[1], $_->[0], 64, $source, $target) . $_->[1] } transports($source . $target);
}

# A UDP datagram and a SYN, for a pair of addresses.
sub transports {
	my ($pair) = @_;
	my $udp = pack "nnnna*", $port + 10000, $port, 8 + length $mark, 0, $mark;
	substr $udp, 6, 2, pack "n", checksum($pair . pack("Nxxx C", length $udp, 17) . $udp);
	my $syn = pack "nnNNnnnn", $port + 10000, $port, 1, 0, 0x5002, 65535, 0, 0;
	substr $syn, 16, 2, pack "n", checksum($pair . pack("Nxxx C", length $syn, 6) . $syn);
	([17, $udp], [6, $syn]);
}

sub ip4 {
	my ($source, $target, $protocol, $rest) = @_;
	my $header = pack "CCnnnCCna4a4", 0x45, 0, 20 + length $rest, $port, 0, 64, $protocol, 0, inet_aton($source), inet_aton($target);
	substr $header, 10, 2, pack "n", checksum($header);
	$header . $rest;
}

sub checksum {
	my ($bytes) = @_;
	$bytes .= "\0" if length($bytes) % 2;
	my $sum = 0;
	$sum += $_ for unpack "n*", $bytes;
	$sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
	0xffff & ~$sum;
}
