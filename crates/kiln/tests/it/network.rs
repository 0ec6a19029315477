//! What a guest reaches, and what it doesn't.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use crate::{harness::Kiln, servers::Server};

/// Prints for each HOST:PORT whether something there answers.
const TRY: &str = r#"
    { set +x; } 2>/dev/null
    reach() {
        if timeout 10 bash -c "exec 3<>/dev/tcp/${1%:*}/${1##*:}" 2>/dev/null; then echo "$1 open"; else echo "$1 closed"; fi
    }
"#;

/// This host's own address in the network around it; none where there is none.
/// Connecting a datagram socket sends nothing.
pub fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("198.51.100.1:9").ok()?;
    match socket.local_addr().expect("an address").ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[test]
fn a_guest_reaches_of_the_host_only_what_was_allowed() {
    let kiln = Kiln::new();
    kiln.file("served/hello", "hello from the host\n");
    let served = kiln.dir().join("served");
    let (allowed, closed) = (Server::http(&served), Server::http(&served));
    let everywhere = TcpListener::bind("0.0.0.0:0").expect("a socket");
    let port = everywhere.local_addr().expect("an address").port();
    let mut unreachable = vec![
        closed.in_guest(),
        format!("10.0.2.2:{port}"),
        format!("10.0.2.3:{port}"),
        format!("10.0.3.2:{port}"),
        "169.254.169.254:80".to_owned(),
        "192.168.0.1:80".to_owned(),
    ];
    unreachable.extend(own_address().map(|address| format!("{address}:{port}")));
    let ended = kiln
        .run(&format!(
            "tasks:\n- try: |{TRY}    curl -s http://{at}/hello\n    for each in {at} {all}; do reach $each; done\n",
            at = allowed.in_guest(),
            all = unreachable.join(" ")
        ))
        .args(allowed.allow())
        .expect_success();
    ended.expect_line("try", "hello from the host");
    ended.expect_line("try", &format!("{} open", allowed.in_guest()));
    for address in &unreachable {
        ended.expect_line("try", &format!("{address} closed"));
    }
    assert_eq!(closed.requests(), Vec::<String>::new());
    everywhere.set_nonblocking(true).expect("a socket");
    assert!(everywhere.accept().is_err(), "the guest reached the host");
}

#[test]
fn a_guest_without_network_reaches_nothing_and_its_tasks_run_all_the_same() {
    let kiln = Kiln::new();
    let server = Server::http(&kiln.dir());
    let addresses = [
        server.in_guest(),
        "10.0.2.3:53".into(),
        "198.51.100.1:443".into(),
    ];
    let ended = kiln
        .run(&format!(
            "tasks:\n- try: |{TRY}    for each in {}; do reach $each; done\n    mirror=$(sed -n 's,.*https*://\\([^/: ]*\\).*,\\1,p' /etc/apt/sources.list | head -n 1)\n    test -n \"$mirror\"\n    getent hosts \"$mirror\" || echo no names for \"$mirror\"\n",
            addresses.join(" ")
        ))
        .arg("--no-network")
        .expect_success();
    for address in &addresses {
        ended.expect_line("try", &format!("{address} closed"));
    }
    assert!(ended.task_log("try").contains("no names for "), "{ended}");
    assert_eq!(server.requests(), Vec::<String>::new());
}
