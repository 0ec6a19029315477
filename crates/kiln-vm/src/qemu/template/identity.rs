//! Makes a clone a machine of its own, as its root, before anything of a job
//! enters: clones of one template would otherwise draw the same random
//! numbers, and their clock would stand where the template was frozen.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;

use crate::{
    machine::{Bounded, Exec},
    session::{Said, Session},
    ssh,
};

/// Long for a busy host.
const DEADLINE: Duration = Duration::from_secs(60);
/// Two words, or an error of perl's.
const MAX_SAID: usize = 16 * 1024;
/// What is mixed into the guest's pool, in bytes.
const ENTROPY: usize = 64;

/// What an image must have: Linux, root without a password, perl for two system
/// calls that no shell can make, and the files that are replaced.
const SUPPORTED: &str = r#"[ "$(uname -s)" = Linux ] && [ -d /run ] && [ -e /proc/sys/kernel/random/boot_id ] && command -v mount >/dev/null && sudo -n perl -e 'open(my $r, "+<", "/dev/urandom") or exit 1; ioctl($r, 0x5207, 0) or exit 1'"#;

/// Reads one line: the number of settimeofday(2), seconds, microseconds, random
/// bytes in hexadecimal. No module is loaded: that alone takes an emulated guest
/// a third of a second.
///
/// The order: the pool is reseeded first, so that everything later draws
/// numbers of its own. `RNDADDENTROPY` would count, but `RNDRESEEDCRNG` makes
/// the kernel use what was written at once (random(4)). The second /proc is for
/// containers: where none is seen whole, the kernel lets no user namespace mount
/// one (mount_namespaces(7)). It is covered, so that nobody comes by.
const RENEW: &str = r#"exec sudo -n perl -e '
use strict; use warnings;
$| = 1; print "ready\n";
my ($settimeofday, $seconds, $microseconds, $seed) = split " ", <STDIN>;
$settimeofday += 0; $seconds += 0; $microseconds += 0;
my $time = pack("q q", $seconds, $microseconds);
syscall($settimeofday, $time, 0) == 0 or die "clock: $!";
open(my $random, "+<", "/dev/urandom") or die "urandom: $!";
syswrite($random, pack("H*", $seed)) or die "urandom: $!";
ioctl($random, 0x5207, 0) or die "reseed: $!";
my $draw = sub { my $bytes; sysread($random, $bytes, 16) == 16 or die "draw: $!"; unpack("H*", $bytes) };
my $write = sub { open(my $file, ">", $_[0]) or die "$_[0]: $!"; print $file $_[1]; close $file or die "$_[0]: $!" };
$write->("/etc/machine-id", $draw->() . "\n") if -e "/etc/machine-id";
my $uuid = $draw->();
substr($uuid, 12, 1, "4"); substr($uuid, 16, 1, "a");
$uuid =~ s/(.{8})(.{4})(.{4})(.{4})(.{12})/$1-$2-$3-$4-$5/;
$write->("/run/kiln-boot-id", "$uuid\n");
if (!-e "/run/kiln") {
  mkdir($_, 0700) or die "$_: $!" for "/run/kiln", "/run/kiln/proc";
  my $boot_id = "/proc/sys/kernel/random/boot_id";
  my $mounts = "mount -t proc proc /run/kiln/proc && mount -t tmpfs -o ro none /run/kiln && mount --bind /run/kiln-boot-id $boot_id";
  system($mounts) == 0 or die "boot id: $?";
}
print "renewed\n";
'"#;

/// Whether the guest has what a clone needs.
pub(super) async fn supported(session: &ssh::Session) -> Result<bool, String> {
    let mut said = Bounded::new(MAX_SAID);
    let asked = timeout(DEADLINE, session.exec(Exec::new(SUPPORTED), &mut said)).await;
    match asked {
        Ok(Ok(code)) => Ok(code.success()),
        Ok(Err(error)) => Err(error.to_string()),
        // A sudo that asks or waits is as good as none.
        Err(_) => Ok(false),
    }
}

/// Gives a clone its own.
pub(in super::super) async fn renew(session: &Session, arch: &str) -> Result<(), String> {
    let converse = async {
        match session {
            Session::Agent(agent) => {
                let line = line().map_err(|error| error.to_string())?;
                let renewed = agent.renew(&line).await;
                renewed.map_err(|error| error.to_string())?
            }
            Session::Ssh(_) => converse(session, arch).await,
        }
    };
    let renewed = timeout(DEADLINE, converse).await;
    renewed.map_err(|_| "the clone did not get its own identity in time".to_owned())?
}

async fn converse(session: &Session, arch: &str) -> Result<(), String> {
    let piped = session.pipe(RENEW).await;
    let (mut output, input) = piped.map_err(|error| error.to_string())?;
    let mut said = String::new();
    let mut answered = false;
    loop {
        match output.next().await.map_err(|error| error.to_string())? {
            Said::Out(bytes) | Said::Err(bytes) => {
                said.push_str(&String::from_utf8_lossy(&bytes));
                if said.len() > MAX_SAID {
                    return Err("the clone floods us when asked for its identity".into());
                }
            }
            Said::Exit(code) if code.success() && said.contains("renewed") => return Ok(()),
            Said::Exit(_) => {
                return Err(format!(
                    "the clone got no identity of its own: {}",
                    said.trim()
                ));
            }
        }
        if !answered && said.contains("ready") {
            answered = true;
            let line = line().map_err(|error| error.to_string())?;
            let line = format!("{} {line}\n", settimeofday(arch));
            input
                .write(line.as_bytes())
                .await
                .map_err(|error| error.to_string())?;
            input.end().await.map_err(|error| error.to_string())?;
        }
    }
}

/// Seconds, microseconds, random bytes. Made when the other end is waiting for
/// it, so that the time is right.
pub(super) fn line() -> std::io::Result<String> {
    let mut seed = [0u8; ENTROPY];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seed = crate::image::hex(&seed);
    Ok(format!("{} {} {seed}", now.as_secs(), now.subsec_micros()))
}

/// The number of settimeofday(2) in Linux's tables.
fn settimeofday(arch: &str) -> u32 {
    match kiln_core::arch::canonical(arch) {
        "x86_64" => 164,
        "ppc64le" | "s390x" => 79,
        // The generic table: aarch64, riscv64.
        _ => 170,
    }
}
