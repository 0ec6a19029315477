//! The host's package mirror.
//!
//! A guest reaches nothing but the public internet. Where the host's own
//! mirror has another address, images could install nothing, so kiln opens that
//! one address and port, and says so. An apt proxy may lead to all that it
//! reaches itself, and the loopback is the host: those wait for `--allow`.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use kiln_vm::network::{Allowed, filter};

/// A server that the host's apt uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it is to apt.
    pub role: Role,
}

/// What a server is to apt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It has one of the distribution's own archives.
    Archive,
    /// It is asked for everything.
    Proxy,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Archive => "package mirror",
            Self::Proxy => "apt proxy",
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Server {
    /// Whether guests are let to it at this address without being asked.
    pub fn opens_by_itself(&self, address: IpAddr) -> bool {
        self.role == Role::Archive && !address.is_loopback()
    }

    /// What opens it at this address.
    pub fn how_to_open(&self, address: IpAddr) -> String {
        if address.is_loopback() {
            let port = self.port;
            format!("--allow {address}:{port} opens it, as 10.0.2.2:{port} in the guest")
        } else {
            format!("--allow {self} opens it")
        }
    }
}

/// The servers of the distribution's own archives, and the proxy before them.
pub fn servers() -> Vec<Server> {
    let mut servers: BTreeSet<Server> = BTreeSet::new();
    let sources = texts("/etc/apt/sources.list", "/etc/apt/sources.list.d");
    servers.extend(sources.iter().flat_map(|text| archives(text)));
    let proxy = proxy();
    servers.extend(proxy.as_deref().and_then(|url| server(url, Role::Proxy)));
    servers.into_iter().collect()
}

/// The proxy of the host's apt, as a URL.
pub fn proxy() -> Option<String> {
    proxy_of(&texts("/etc/apt/apt.conf", "/etc/apt/apt.conf.d"))
}

/// The addresses of these servers that a guest would not reach.
pub async fn closed(servers: &[Server]) -> Vec<(Server, Allowed)> {
    let connected = filter::closed_networks().unwrap_or_default();
    let mut closed = Vec::new();
    for server in servers {
        let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
        for address in found.into_iter().flatten() {
            if let IpAddr::V4(v4) = address.ip()
                && in_any(v4, &connected)
            {
                let allowed = Allowed {
                    address: v4.into(),
                    port: Some(server.port),
                };
                closed.push((server.clone(), allowed));
            }
        }
    }
    closed
}

fn in_any(address: Ipv4Addr, networks: &[(Ipv4Addr, u32)]) -> bool {
    networks.iter().any(|(network, prefix)| {
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        u32::from(address) & mask == u32::from(*network) & mask
    })
}

/// A file and the files of a directory, whatever of them can be read.
fn texts(file: &str, dir: &str) -> Vec<String> {
    let mut paths = vec![Path::new(file).to_owned()];
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    paths.extend(entries.map(|entry| entry.path()));
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect()
}

/// The distribution's own archives among the words of a sources file, in
/// either of apt's formats: others are no business of a guest.
fn archives(text: &str) -> Vec<Server> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    words
        .filter(|word| is_archive(word))
        .filter_map(|url| server(url, Role::Archive))
        .collect()
}

/// Whether a URL is one of Debian's or Ubuntu's archives, by its last part.
pub fn is_archive(url: &str) -> bool {
    let last = url.trim_end_matches('/').rsplit('/').next();
    let names = ["debian", "debian-security", "ubuntu"];
    url.starts_with("http") && last.is_some_and(|last| names.contains(&last))
}

fn proxy_of(texts: &[String]) -> Option<String> {
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.map(str::trim).find_map(|line| {
        let value = line.strip_prefix("Acquire::http::Proxy")?;
        let value = value.trim().trim_end_matches(';').trim_matches('"');
        value.starts_with("http").then(|| value.to_owned())
    })
}

fn server(url: &str, role: Role) -> Option<Server> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    let default = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default),
    };
    let host = host.to_owned();
    (!host.is_empty()).then_some(Server { host, port, role })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_found_in_both_formats() {
        let text = "# deb http://old.example/debian x main\n\
            deb [signed-by=/x] http://mirror.example:3142/debian bookworm main\n\
            URIs: https://security.example/debian-security/\n\
            deb https://packages.example/apt stable main\n";
        let servers = archives(text);
        let found: Vec<(&str, u16)> = servers.iter().map(|s| (s.host.as_str(), s.port)).collect();
        assert_eq!(found, [("mirror.example", 3142), ("security.example", 443)]);
    }

    #[test]
    fn the_proxy_is_the_one_of_the_configuration() {
        let conf =
            ["APT::X \"1\";\nAcquire::http::Proxy \"http://proxy.example:8000/\";\n".to_owned()];
        assert_eq!(
            proxy_of(&conf).as_deref(),
            Some("http://proxy.example:8000/")
        );
        assert_eq!(
            proxy_of(&["Acquire::http::Proxy \"DIRECT\";".to_owned()]),
            None
        );
    }

    #[test]
    fn a_closed_server_says_how_it_is_opened() {
        let proxy = server("http://proxy.example:3128/", Role::Proxy).unwrap();
        let inside = IpAddr::from([10, 1, 1, 1]);
        assert!(!proxy.opens_by_itself(inside));
        assert_eq!(
            proxy.how_to_open(inside),
            "--allow proxy.example:3128 opens it"
        );
        let mirror = server("http://mirror.example/debian", Role::Archive).unwrap();
        assert!(mirror.opens_by_itself(inside));
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert!(!mirror.opens_by_itself(loopback));
        assert_eq!(
            mirror.how_to_open(loopback),
            "--allow 127.0.0.1:80 opens it, as 10.0.2.2:80 in the guest"
        );
    }

    #[test]
    fn a_network_holds_its_addresses() {
        let networks = [(Ipv4Addr::new(10, 0, 0, 0), 8)];
        assert!(in_any(Ipv4Addr::new(10, 9, 8, 7), &networks));
        assert!(!in_any(Ipv4Addr::new(11, 0, 0, 1), &networks));
        assert!(in_any(
            Ipv4Addr::new(11, 0, 0, 1),
            &[(Ipv4Addr::UNSPECIFIED, 0)]
        ));
    }
}
