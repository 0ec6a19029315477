//! What reads bytes of guests, of QEMU and of images, for the fuzzers in
//! `fuzz/targets`, with the feature `testing` only.
//!
//! Each function of [`READERS`] gives its reader any bytes in the way that they
//! come in production. It panics when the reader does, or when what it made of
//! them is not what the rest of kiln relies on; it never waits, as the stream
//! ends after these bytes.

use std::{
    future::Future,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::NamedTempFile;
use tokio::{io::AsyncWriteExt as _, net::UnixStream, sync::watch};

use crate::{
    agent::{
        Agent,
        frame::{self, Frames, MAX_BODY},
    },
    image::{functions::Functions, qcow2},
    machine::{Bounded, Exec, Put},
    namespace::{
        Isolation,
        protocol::{self, Numbered, Reply},
    },
    qemu::{
        arguments::{self, Checked},
        qmp::Qmp,
        ready, version,
    },
    ssh::marker::Scanner,
    tail::Tail,
};

/// A reader of hostile bytes.
pub type Reader = fn(&[u8]);

/// All of them. The seeds in `fuzz/seeds/hostile` go by their places, so new
/// ones come last.
pub const READERS: &[Reader] = &[
    qmp,
    console,
    output,
    usernet,
    frames,
    helper,
    report,
    disk,
    layer,
    words,
    namespace,
    qemu_version,
];

/// For an answer of the helper, which has none of its own here.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an answer may hold in memory.
const ANSWER: usize = 1 << 10;
/// Over which a fuzzed layer must lie.
const BELOW: &str = "/base/disk";

/// QEMU's side of the control socket, from its greeting to its end.
pub fn qmp(bytes: &[u8]) {
    block(async {
        let Some((ours, theirs)) = said(bytes).await else {
            return;
        };
        let Ok(qmp) = Qmp::connect(ours).await else {
            return;
        };
        if let Ok(table) = qmp.monitor("info usernet").await {
            usernet(table.as_bytes());
        }
        let last = qmp.last_events().await;
        assert_eq!(last, qmp.events());
        drop(theirs);
    });
}

/// A guest's console or QEMU's standard error; every zero byte ends a piece.
pub fn console(bytes: &[u8]) {
    let mut tail = Tail::new();
    for piece in bytes.split(|&byte| byte == 0) {
        tail.push(piece);
    }
    let shown = tail.said();
    assert!(shown.is_empty() || shown.starts_with(":\n"));
    assert!(shown.lines().count() <= 13, "more than twelve lines");
    assert!(shown.len() <= 3 * bytes.len() + 2, "more than was said");
    assert!(
        !shown
            .chars()
            .any(|c| c.is_control() && !matches!(c, '\t' | '\n')),
        "controls for a terminal"
    );
    let _ = tail.contains("Kernel panic");
}

/// A command's output, with the marker of its end somewhere or not. Cut into
/// pieces of the first byte's length, it must read as it does whole.
pub fn output(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    for skipping in [false, true] {
        let whole = scanned(&mut std::iter::once(stream), skipping);
        let cut = scanned(&mut stream.chunks(usize::from(cut.max(1))), skipping);
        assert_eq!(whole, cut, "a cut changes the output");
        assert!(whole.0.len() <= stream.len());
    }
}

fn scanned(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    skip_until_open: bool,
) -> (Vec<u8>, Option<u32>) {
    let mut scanner = Scanner::new("n", skip_until_open);
    let mut output = Vec::new();
    for piece in pieces {
        let scanned = scanner.push(piece);
        output.extend(scanned.output);
        if scanned.status.is_some() {
            return (output, scanned.status);
        }
    }
    output.extend(scanner.finish());
    (output, None)
}

/// QEMU's table of the guest's connections.
pub fn usernet(bytes: &[u8]) {
    let table = String::from_utf8_lossy(bytes);
    assert!(ready::accepted(&table, 22) <= table.lines().count());
    let _ = ready::forwarded_port(&table);
}

/// The helper's frames. What was read, sent again, is what was there.
pub fn frames(bytes: &[u8]) {
    block(async {
        let mut frames = Frames::new(bytes);
        let mut again = Vec::new();
        while let Ok(frame) = frames.next().await {
            assert!(frame.body.len() <= MAX_BODY);
            let sent = frame::send(&mut again, frame.kind, &frame.body).await;
            assert!(sent.is_ok());
        }
        assert!(bytes.starts_with(&again));
    });
}

/// A helper in the guest that answers our greeting, then says this and ends;
/// the first byte is for what it was asked.
pub fn helper(bytes: &[u8]) {
    let Some((&asked, answer)) = bytes.split_first() else {
        return;
    };
    block(async {
        let Ok((ours, theirs)) = UnixStream::pair() else {
            return;
        };
        let (_tell, closed) = watch::channel(false);
        let (met, _theirs) = tokio::join!(
            Agent::meet(ours, closed, String::new(), PATIENCE),
            greet_and_say(theirs, answer),
        );
        let Ok(agent) = met else {
            return;
        };
        let mut kept = Bounded::new(ANSWER);
        match asked % 4 {
            0 => drop(agent.exec(Exec::with_stdin("x", b"in"), &mut kept).await),
            1 => drop(agent.renew("1 2 3").await),
            2 => drop(agent.is_fresh().await),
            _ => {
                let directory = Put::Directory {
                    path: "/x".into(),
                    mode: 0o700,
                };
                drop(agent.put(&[directory], &mut kept).await);
            }
        }
        assert!(kept.bytes.len() <= ANSWER);
    });
}

/// Gives the port, which still takes what is asked: a question to one that is
/// closed has an error and no answer.
async fn greet_and_say(mut theirs: UnixStream, answer: &[u8]) -> io::Result<UnixStream> {
    let hello = Frames::new(&mut theirs).next().await?;
    frame::send(&mut theirs, b'H', &hello.body).await?;
    theirs.write_all(answer).await?;
    theirs.shutdown().await?;
    Ok(theirs)
}

/// What a `functions` reports of itself, and what it then asks of QEMU.
pub fn report(bytes: &[u8]) {
    let functions = Functions {
        helper: PathBuf::new(),
        isolation: Isolation::Namespaces,
        base: PathBuf::new(),
        dir: PathBuf::new(),
        kvm: false,
        cgroups: None,
    };
    match functions.parse(bytes) {
        Ok((request, _)) => {
            assert!(request.arguments.iter().all(|word| !word.contains('\0')));
            check(&request.arguments);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// A disk's file: what is accepted names no other.
pub fn disk(bytes: &[u8]) {
    let Ok(file) = written(bytes) else {
        return;
    };
    match qcow2::inspect(file.path()) {
        Ok(disk) => {
            assert!((1..=2 << 40).contains(&disk.virtual_size));
            assert_eq!(bytes.get(8..16), Some(&[0; 8][..]), "a backing file");
        }
        Err(refused) => drop(refused.to_string()),
    }
}

/// The file of a layer that a guest wrote to.
pub fn layer(bytes: &[u8]) {
    let Ok(file) = written(bytes) else {
        return;
    };
    match qcow2::inspect_layer(file.path(), Path::new(BELOW)) {
        Ok(()) => assert!(
            bytes
                .windows(BELOW.len())
                .any(|name| name == BELOW.as_bytes())
        ),
        Err(refused) => drop(refused.to_string()),
    }
}

/// The words that an image wants QEMU to be started with, and its `driveopts`,
/// each ended by a zero byte.
pub fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    check(&words);
    for word in &words {
        if let Ok(options) = arguments::check_drive(word) {
            assert_no_host(&options);
        }
    }
}

/// The image's directory has no files here, so nothing that passes may name
/// one, but the host's random numbers.
fn check(words: &[String]) {
    let Ok(Checked { words, .. }) = arguments::check(words, Path::new("/nonexistent/image")) else {
        return;
    };
    let mut words = words.iter().map(String::as_str);
    while let Some(option) = words.next() {
        match option {
            "-no-acpi" | "-no-hpet" | "-usb" | "-nodefaults" | "-no-user-config" => {}
            // Free text for the guest's own eyes.
            "-append" | "-cpu" => assert!(words.next().is_some(), "{option} has no value"),
            "-boot" | "-machine" | "-M" | "-rtc" | "-vga" | "-device" | "-object" => {
                let value = words.next();
                assert!(value.is_some(), "{option} has no value");
                assert_no_host(value.unwrap_or_default());
            }
            // Firmware of the host, where it is installed.
            "-bios" | "-dtb" | "-initrd" | "-kernel" | "-drive" => {
                let value = words.next().unwrap_or_default();
                let path = value.rsplit_once("file=").map_or(value, |(_, path)| path);
                assert!(path.starts_with("/usr/"), "{option} {value}");
            }
            _ => unreachable!("QEMU would get {option}"),
        }
    }
}

/// That none of a list's properties is about the host. As QEMU reads them: a
/// comma is escaped by another one.
fn assert_no_host(list: &str) {
    const HOST: &[&str] = &[
        "chardev", "driver", "dumpdtb", "fd", "file", "host", "mem-path", "path", "splash",
        "script",
    ];
    for part in list.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        assert!(!HOST.contains(&name), "QEMU would get {list}");
        assert!(name != "romfile" || value.is_empty(), "{list}");
        let random = matches!(value, "/dev/urandom" | "/dev/random");
        assert!(name != "filename" || random, "{list}");
    }
}

/// A packet from the namespace's helper, which may be QEMU's.
pub fn namespace(bytes: &[u8]) {
    let Ok((ours, theirs)) = protocol::socketpair() else {
        return;
    };
    // An empty packet is the socket's end.
    if rustix::net::send(&theirs, bytes, rustix::net::SendFlags::empty()).is_err() {
        return;
    }
    match protocol::receive::<Numbered<Reply>>(ours.as_fd()) {
        Ok(received) => assert_eq!(received.is_none(), bytes.is_empty()),
        Err(error) => drop(error.to_string()),
    }
}

/// What a program says of its version.
pub fn qemu_version(bytes: &[u8]) {
    let _ = version::parse(&String::from_utf8_lossy(bytes));
}

/// Runs this to its end; tasks that it has left end with it.
fn block(future: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    assert!(runtime.is_ok(), "no descriptors are left");
    if let Ok(runtime) = runtime {
        runtime.block_on(future);
    }
}

/// A connection whose other end has said this and says no more.
async fn said(bytes: &[u8]) -> Option<(UnixStream, UnixStream)> {
    let (ours, mut theirs) = UnixStream::pair().ok()?;
    theirs.write_all(bytes).await.ok()?;
    theirs.shutdown().await.ok()?;
    Some((ours, theirs))
}

fn written(bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(bytes)?;
    Ok(file)
}
