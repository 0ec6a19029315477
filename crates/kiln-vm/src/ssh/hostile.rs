//! What a guest's SSH server may do to us: end its session, and nothing more.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::{
    collection::vec,
    prelude::{Just, any},
    prop_oneof,
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{TestRng, TestRunner},
};
use russh::{
    keys::{PrivateKey, ssh_key::private::Ed25519Keypair},
    server::{self, Auth, Handle, Msg},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{LoginError, Session, USER};
use crate::machine::Exec;

/// Far below a login's own deadline.
const SOON: Duration = Duration::from_secs(20);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap());
    let (ours, theirs) = tokio::join!(ours, listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let row = status.lines().find_map(|row| row.strip_prefix("VmRSS:"));
    let row = row.unwrap().trim().trim_end_matches(" kB");
    row.parse().unwrap()
}

/// Logs in to a server that says this, over and over, until we hang up.
async fn login_to(first: &[u8], again: &[u8]) -> Result<Session, LoginError> {
    let (ours, mut theirs) = pair().await;
    let (first, again) = (first.to_vec(), again.to_vec());
    tokio::spawn(async move {
        let mut went = theirs.write_all(&first).await;
        while went.is_ok() && !again.is_empty() {
            went = theirs.write_all(&again).await;
        }
    });
    timeout(SOON, Session::login(ours)).await.expect("in time")
}

#[tokio::test]
async fn servers_that_never_come_to_the_point_are_left_soon_and_cost_no_memory() {
    let banner = b"SSH-2.0-x\r\n";
    let huge = [&banner[..], &[0xff; 8]].concat();
    let floods: [(&str, &[u8], &[u8]); 5] = [
        ("lines without an end", b"", b"welcome\r\n"),
        ("a line without an end", b"", &[b'x'; 4096]),
        ("zeros", b"", &[0; 4096]),
        ("a packet of 4 GiB", &huge, &[0; 65536]),
        ("packets of nothing", banner, &[0, 0, 0, 0]),
    ];
    let before = resident();
    for (what, first, again) in floods {
        assert!(login_to(first, again).await.is_err(), "{what}");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 * 1024, "{grown} KiB more");
}

/// Bytes as a server might say them, mostly with a beginning that is right. The
/// seed is printed: it makes the same ones again.
#[tokio::test]
async fn no_bytes_log_us_in_or_make_us_panic() {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    println!("seed: {bytes:?}");
    let rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(proptest::test_runner::Config::default(), rng);
    let packet = (0u32..70_000, vec(any::<u8>(), 0..400))
        .prop_map(|(length, rest)| [&length.to_be_bytes()[..], &rest].concat());
    let banner = prop_oneof![
        Just(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        vec(any::<u8>(), 0..300)
    ];
    let stream = (banner, vec(packet, 0..4));
    for _ in 0..200 {
        let (banner, packets) = stream.new_tree(&mut runner).unwrap().current();
        let said = [banner, packets.concat()].concat();
        assert!(login_to(&said, b"").await.is_err(), "{said:?}");
    }
}

/// Lets anybody in, and wants much of them.
#[derive(Clone)]
struct Greedy {
    /// What we gave it of what it asked for.
    given: Arc<Mutex<Vec<&'static str>>>,
    asked: Arc<tokio::sync::Notify>,
}

impl server::Handler for Greedy {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        assert_eq!(user, USER);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: russh::Channel<Msg>,
        reply: server::ChannelOpenHandle,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        tokio::spawn(ask(session.handle(), self.clone()));
        Ok(())
    }
}

async fn ask(us: Handle, greedy: Greedy) {
    let mut given = Vec::new();
    if us.channel_open_session().await.is_ok() {
        given.push("a session");
    }
    if us.channel_open_agent().await.is_ok() {
        given.push("the agent");
    }
    if us.channel_open_x11("127.0.0.1", 6010).await.is_ok() {
        given.push("the display");
    }
    let tcp = us.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1);
    if tcp.await.is_ok() {
        given.push("a forwarded connection");
    }
    let direct = us.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1);
    if direct.await.is_ok() {
        given.push("a connection of ours");
    }
    let unix = us.channel_open_direct_streamlocal("/run/docker.sock");
    if unix.await.is_ok() {
        given.push("a socket of ours");
    }
    let unix = us.channel_open_forwarded_streamlocal("/run/docker.sock");
    if unix.await.is_ok() {
        given.push("a forwarded socket");
    }
    *greedy.given.lock().unwrap() = given;
    greedy.asked.notify_one();
}

#[tokio::test]
async fn a_server_that_asks_us_for_something_gets_nothing() {
    let (ours, theirs) = pair().await;
    let greedy = Greedy {
        given: Arc::default(),
        asked: Arc::default(),
    };
    let config = server::Config {
        keys: vec![PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))],
        ..server::Config::default()
    };
    let serving = greedy.clone();
    tokio::spawn(async move {
        let session = server::run_stream(Arc::new(config), theirs, serving).await;
        let _ = session.unwrap().await;
    });
    let session = Session::login(ours).await.unwrap();
    let mut nothing = Vec::new();
    // It never answers the command: its own questions come meanwhile.
    let all_asked = timeout(SOON, greedy.asked.notified());
    tokio::select! {
        ran = session.exec(Exec::new("true"), &mut nothing) => panic!("it answered: {ran:?}"),
        asked = all_asked => asked.expect("it asked for everything"),
    }
    assert_eq!(*greedy.given.lock().unwrap(), Vec::<&str>::new());
    assert!(!session.is_closed());
}
