//! The host's package mirror, which images are built from and guests install
//! from.

use std::{net::IpAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use super::finding::Finding;
use crate::host::apt::{self, Role, Server};

/// Less than the look's own, so that the line can say which.
const CONNECT: Duration = Duration::from_secs(3);

/// Whether each answers, and whether guests need it opened.
pub async fn look() -> Vec<Finding> {
    let servers = asked(apt::servers());
    if servers.is_empty() {
        return vec![Finding::warning(
            "package mirror: this host's apt has none of Debian's archives",
            "name one: kiln image build --mirror URL debian/bookworm",
        )];
    }
    let looks: Vec<_> = servers
        .into_iter()
        .map(|server| tokio::spawn(look_at(server)))
        .collect();
    let mut findings = Vec::new();
    for look in looks {
        findings.extend(look.await);
    }
    findings
}

/// With a proxy, nobody else is asked.
fn asked(servers: Vec<Server>) -> Vec<Server> {
    let is_proxy = |server: &Server| server.role == Role::Proxy;
    if servers.iter().any(is_proxy) {
        servers.into_iter().filter(is_proxy).collect()
    } else {
        servers
    }
}

async fn look_at(server: Server) -> Finding {
    let address = (server.host.as_str(), server.port);
    let answer = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT.as_secs())),
    };
    let closed = match &answer {
        Ok(()) => apt::closed(std::slice::from_ref(&server)).await,
        Err(_) => Vec::new(),
    };
    let closed: Vec<IpAddr> = closed.iter().map(|(_, open)| open.address).collect();
    judge(&server, answer, &closed)
}

/// `closed`: at which addresses guests don't reach it.
fn judge(server: &Server, answer: Result<(), String>, closed: &[IpAddr]) -> Finding {
    let name = format!("{}: {server}", server.role);
    if let Err(error) = answer {
        return Finding::warning(
            format!("{name}: {error}; guests install nothing from it and no image can be built"),
            "see to the network or the name server, or correct /etc/apt",
        );
    }
    let by_hand = |address: &&IpAddr| !server.opens_by_itself(**address);
    if let Some(address) = closed.iter().find(by_hand) {
        return Finding::warning(
            format!("{name} answers; its address is not public and guests don't reach it"),
            format!("kiln run {}", server.how_to_open(*address)),
        );
    }
    Finding::ok(if closed.is_empty() {
        format!("{name} answers; guests reach it as they reach the internet")
    } else {
        format!(
            "{name} answers; its address is not public, so `kiln run` opens it to Debian and Ubuntu guests"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(role: Role) -> Server {
        Server {
            host: "deb.example".into(),
            port: 80,
            role,
        }
    }

    #[test]
    fn behind_a_proxy_only_the_proxy_matters() {
        let (archive, proxy) = (server(Role::Archive), server(Role::Proxy));
        assert_eq!(asked(vec![archive.clone()]).len(), 1);
        assert_eq!(asked(vec![archive, proxy.clone()]), [proxy]);
    }

    #[test]
    fn an_unreachable_mirror_and_one_that_waits_to_be_opened_are_warnings() {
        let line = |role, answer, closed: &[&str]| {
            let closed: Vec<IpAddr> = closed.iter().map(|text| text.parse().unwrap()).collect();
            judge(&server(role), answer, &closed).to_string()
        };
        assert!(
            line(Role::Archive, Err("refused".into()), &[])
                .starts_with("--  package mirror: deb.example:80: refused; ")
        );
        let archive = |closed| line(Role::Archive, Ok(()), closed);
        assert!(archive(&[]).contains("as they reach the internet"));
        assert!(archive(&["10.1.1.1"]).contains("`kiln run` opens it"));
        for found in [
            archive(&["127.0.0.1"]),
            line(Role::Proxy, Ok(()), &["10.1.1.1"]),
        ] {
            assert!(found.starts_with("--"), "{found}");
            assert!(found.contains("kiln run --allow "), "{found}");
        }
    }
}
