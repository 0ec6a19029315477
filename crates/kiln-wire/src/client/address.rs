//! What the words of a URL mean: a server's, and a proxy's.

use std::net::IpAddr;

use http::Uri;

use super::ClientError;

/// Where a server's URL points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub https: bool,
    /// Without the brackets of IPv6.
    pub host: String,
    pub port: u16,
    /// As in the URL: what `Host` says.
    pub authority: String,
    /// What stands before each path; empty, or with a slash first and none last.
    pub prefix: String,
}

impl Address {
    /// Reads a server's URL.
    pub fn server(url: &str, insecure: bool) -> Result<Self, ClientError> {
        let address = Self::read(url, "the server's address")?;
        if !address.https && !insecure && !address.is_loopback() {
            return Err(ClientError::Wrong(format!(
                "{url} would send tokens readable to everybody on the way; \
                 use https://{}, or --insecure if the network is yours alone",
                address.authority
            )));
        }
        Ok(address)
    }

    fn read(url: &str, what: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| {
            ClientError::Wrong(format!(
                "{what} `{url}` {why}; it should look like https://builds.example.org"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it: tokens are told otherwise"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(wrong("has no host"));
        }
        Ok(Self {
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port(authority, if https { 443 } else { 80 }).map_err(wrong)?,
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// The URI that tells a TCP connector where to go.
    pub fn tcp(&self) -> Result<Uri, ClientError> {
        tcp(&self.host, self.port)
    }
}

fn port(authority: &http::uri::Authority, default: u16) -> Result<u16, &'static str> {
    match authority.port() {
        None => Ok(default),
        Some(port) if port.as_u16() != 0 => Ok(port.as_u16()),
        Some(_) => Err("has no port that one can connect to"),
    }
}

fn tcp(host: &str, port: u16) -> Result<Uri, ClientError> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    format!("http://{host}:{port}/")
        .parse()
        .map_err(|_| ClientError::Wrong(format!("`{host}` is no host")))
}

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// What `Proxy-Authorization` says.
    pub credentials: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`. Nothing of it is in an error:
    /// it may have a password.
    pub fn read(url: &str) -> Result<Self, ClientError> {
        let wrong = || {
            ClientError::Wrong(
                "the proxy's address is none; it should look like http://proxy.example.org:3128"
                    .to_owned(),
            )
        };
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = full.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(ClientError::Wrong(
                "the proxy must be an HTTP proxy, reached by http://; others are not spoken"
                    .to_owned(),
            ));
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let credentials = match authority.as_str().rsplit_once('@') {
            Some((user, _)) => Some(decoded(user).ok_or_else(wrong)?),
            None => None,
        };
        Ok(Self {
            host,
            port: port(authority, 80).map_err(|_| wrong())?,
            credentials: credentials
                .map(|user| format!("Basic {}", kiln_core::base64::encode(&user))),
        })
    }

    /// The URI that tells a TCP connector where to go.
    pub fn tcp(&self) -> Result<Uri, ClientError> {
        tcp(&self.host, self.port)
    }

    /// `host:port`, for people.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_go() {
        let read = |url| Address::server(url, true).unwrap();
        let plain = read("https://builds.example.org");
        assert_eq!((plain.https, plain.port), (true, 443));
        assert_eq!(plain.prefix, "");
        let deep = read("http://[::1]:8080/farm/");
        assert_eq!((deep.host.as_str(), deep.port), ("::1", 8080));
        assert_eq!(deep.prefix, "/farm");
        assert_eq!(deep.tcp().unwrap().to_string(), "http://[::1]:8080/");
    }

    #[test]
    fn plain_http_goes_to_loopback_only_unless_told() {
        for near in ["http://127.0.0.1:1", "http://localhost", "http://[::1]"] {
            assert!(Address::server(near, false).is_ok(), "{near}");
        }
        for far in [
            "http://example.org",
            "http://10.0.0.1",
            "http://localhost.org",
        ] {
            let error = Address::server(far, false).unwrap_err().to_string();
            assert!(error.contains("--insecure"), "{error}");
            assert!(Address::server(far, true).is_ok(), "{far}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_an_example() {
        for wrong in [
            "",
            "x",
            "ftp://x",
            "https://",
            "https://a@b",
            "http://x:0",
            "http://x?y",
        ] {
            let error = Address::server(wrong, true).unwrap_err().to_string();
            assert!(error.contains("https://builds.example.org"), "{error}");
        }
    }

    #[test]
    fn a_proxy_may_want_a_password_which_no_error_repeats() {
        let proxy = Proxy::read("http://me:p%40ss@proxy:3128").unwrap();
        assert_eq!(proxy.name(), "proxy:3128");
        assert_eq!(proxy.credentials.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(Proxy::read("proxy:3128").unwrap().name(), "proxy:3128");
        for wrong in [
            "http://me:secret%4@x",
            "https://me:secret@x",
            "socks5://secret@x",
            "",
        ] {
            let Err(error) = Proxy::read(wrong) else {
                panic!("{wrong} was taken");
            };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
