//! The host's package mirror, which images are built from and guests install
//! from.

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};

use super::finding::Finding;
use crate::host::apt::{self, Server};

/// Less than the look's own, so that the line can say which.
const CONNECT: Duration = Duration::from_secs(3);

/// Whether each answers, and whether guests need it opened.
pub async fn look() -> Vec<Finding> {
    let servers = asked(apt::servers(), apt::proxy().as_deref());
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
fn asked(servers: Vec<Server>, proxy: Option<&str>) -> Vec<Server> {
    match proxy {
        Some(proxy) => servers
            .into_iter()
            .filter(|server| proxy.contains(&server.host))
            .collect(),
        None => servers,
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
        Ok(()) => !apt::closed(std::slice::from_ref(&server)).await.is_empty(),
        Err(_) => false,
    };
    judge(&server, answer, closed)
}

fn judge(server: &Server, answer: Result<(), String>, closed: bool) -> Finding {
    let name = format!("package mirror: {}:{}", server.host, server.port);
    match answer {
        Err(error) => Finding::warning(
            format!("{name}: {error}; guests install nothing from it and no image can be built"),
            "see to the network or the name server, or correct /etc/apt",
        ),
        Ok(()) if closed => Finding::ok(format!(
            "{name} answers; its address is not public, so `kiln run` opens it to Debian and Ubuntu guests"
        )),
        Ok(()) => Finding::ok(format!(
            "{name} answers; guests reach it as they reach the internet"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str) -> Server {
        Server {
            host: host.into(),
            port: 80,
        }
    }

    #[test]
    fn behind_a_proxy_only_the_proxy_matters() {
        let all = vec![server("deb.example"), server("proxy.example")];
        assert_eq!(asked(all.clone(), None).len(), 2);
        assert_eq!(
            asked(all, Some("http://proxy.example:80/")),
            [server("proxy.example")]
        );
    }

    #[test]
    fn an_unreachable_mirror_is_a_warning() {
        let line = |answer, closed| judge(&server("deb.example"), answer, closed).to_string();
        assert!(
            line(Err("refused".into()), false)
                .starts_with("--  package mirror: deb.example:80: refused; ")
        );
        assert!(line(Ok(()), true).contains("`kiln run` opens it"));
        assert!(line(Ok(()), false).contains("as they reach the internet"));
    }
}
