//! The way from a guest to a server on its host, as QEMU's bare user network
//! has it and as kiln has it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kiln_vm::{
    machine::{Exec, Guest as _},
    network::{Allowed, Network},
    qemu::QemuGuest,
};
use serde_json::{Value, json};

use crate::{bare::Bare, farm::Farm};

/// How long bytes are sent in each direction.
const SENDING: Duration = Duration::from_secs(2);
/// A first time, that does not count: an emulated processor translates each
/// program when it first meets it.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a guest that was just booted goes on starting its services.
const SETTLING: Duration = Duration::from_secs(15);
/// Where a guest finds its host.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));

/// Says what it measured as three numbers: the median time of a connection with
/// one byte in each direction in milliseconds, bytes per second from the server
/// and to it.
const CLIENT: &str = r#"
use strict; use warnings; use IO::Socket::INET; use Time::HiRes 'time';
my ($host, $port, $for) = @ARGV;
sub server { IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => 10) or die "$host:$port: $!\n" }
my @took;
for (1 .. 15) {
	my $begun = time;
	my $server = server();
	syswrite $server, 'e'; sysread $server, my $byte, 1 or die;
	push @took, (time - $begun) * 1000;
}
@took = sort { $a <=> $b } @took;
sub during { my ($piece) = @_; my ($begun, $sum) = (time, 0); $sum += $piece->() while time - $begun < $for; $sum / (time - $begun) }
my $server = server(); syswrite $server, 'd';
my $down = during(sub { sysread($server, my $bytes, 1 << 18) // die });
$server = server(); syswrite $server, 'u';
my $up = during(sub { syswrite($server, 'x' x 65536) // die });
printf "%.3f %.0f %.0f\n", $took[7], $down, $up;
"#;

/// What a path can do.
pub struct Path {
    pub name: &'static str,
    /// A connection and a byte there and back, in milliseconds.
    pub connection: f64,
    /// Bytes per second, to the guest.
    pub down: f64,
    /// Bytes per second, from the guest.
    pub up: f64,
}

impl Path {
    fn read(name: &'static str, said: &[u8]) -> Result<Self> {
        let said = String::from_utf8_lossy(said);
        let numbers: Vec<f64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [connection, down, up] = numbers[..] else {
            anyhow::bail!("{name}: the guest said {said}");
        };
        Ok(Self {
            name,
            connection,
            down,
            up,
        })
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        json!({
            "path": self.name,
            "connection_ms": self.connection,
            "to_guest_bytes_per_s": self.down,
            "from_guest_bytes_per_s": self.up,
        })
    }
}

/// All paths that this host has.
pub async fn measure(farm: &Farm) -> Result<Vec<Path>> {
    let loopback = serve(Ipv4Addr::LOCALHOST)?;
    let bare = Bare::start(farm)?;
    bare.boots().await?;
    tokio::time::sleep(SETTLING).await;
    bare.output(&command(HOST, loopback.port(), WARM_UP))
        .await?;
    let said = bare
        .output(&command(HOST, loopback.port(), SENDING))
        .await?;
    let mut paths = vec![Path::read("bare user network", &said)?];
    drop(bare);
    paths.push(in_guest(farm, "kiln, forward", loopback, HOST).await?);
    if let Some(own) = own_address() {
        let server = serve(own)?;
        paths.push(in_guest(farm, "kiln, uplink", server, own.into()).await?);
    }
    Ok(paths)
}

async fn in_guest(
    farm: &Farm,
    name: &'static str,
    server: SocketAddr,
    seen_at: IpAddr,
) -> Result<Path> {
    let dir = farm.new_dir()?;
    let mut spec = farm.spec(&dir);
    spec.network = Network::Public {
        allow: vec![Allowed {
            address: server.ip(),
            port: Some(server.port()),
        }],
    };
    let guest = farm.machine.start_guest(&spec).await?;
    let said = async {
        output(&guest, &command(seen_at, server.port(), WARM_UP)).await?;
        output(&guest, &command(seen_at, server.port(), SENDING)).await
    };
    let said = said.await;
    guest.stop().await;
    Path::read(name, &said.context(name)?)
}

/// What a command says in a guest of kiln's.
async fn output(guest: &QemuGuest, line: &str) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    let code = guest.exec(Exec::new(line), &mut said).await?;
    ensure!(code.success(), "{}", String::from_utf8_lossy(&said));
    Ok(said)
}

fn command(host: IpAddr, port: u16, sending: Duration) -> String {
    let program = kiln_core::guest_files::shell_quote(CLIENT);
    format!("perl -e {program} {host} {port} {}", sending.as_secs())
}

/// An address of this host that is not of its loopback. Nothing is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(own) if !own.is_loopback() && !own.is_unspecified() => Some(own),
        _ => None,
    }
}

/// A server for as long as this process lives. The first byte of a connection
/// says what it is for.
fn serve(address: Ipv4Addr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).context("a server for the guests")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(at)
}

/// Ends when the guest does.
fn answer(mut stream: TcpStream) -> Option<()> {
    let mut piece = vec![0; 1 << 16];
    stream.set_nodelay(true).ok()?;
    stream.read_exact(piece.get_mut(..1)?).ok()?;
    let begun = Instant::now();
    match piece.first()? {
        b'e' => stream.write_all(b"e").ok(),
        b'd' => {
            while begun.elapsed() < 10 * SENDING {
                stream.write_all(&piece).ok()?;
            }
            None
        }
        _ => {
            while stream.read(&mut piece).ok()? > 0 {}
            None
        }
    }
}
