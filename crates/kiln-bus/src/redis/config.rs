//! Where the bus is, and by what right one comes to it.

use std::{fmt, io, net::IpAddr};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates,
};

/// How a certificate begins, in PEM.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What a bus through the Redis protocol is told.
#[derive(Clone, Default)]
pub struct Config {
    /// `redis://[USER[:PASSWORD]@]HOST[:PORT][/NUMBER]`, `rediss://` with TLS, or
    /// `redis+unix:///SOCKET`. The number tells farms on one server apart.
    pub url: String,
    /// The password, if it is not in the URL.
    pub password: Option<String>,
    /// Certificates (PEM) to trust instead of the host's, with `rediss://`.
    pub ca: Option<Vec<u8>>,
}

impl Config {
    /// Whether it makes sense, without connecting.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        Address::of(self).map(|_| ())
    }

    /// Whether nobody but this host is on the way.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let info = self.url.as_str().into_connection_info();
        info.is_ok_and(|info| match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                let loopback = |ip: IpAddr| ip.is_loopback();
                host == "localhost" || host.parse().is_ok_and(loopback)
            }
            _ => true,
        })
    }
}

/// Without what is secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

/// Why a configuration can't be used. It shows no password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL.
    #[error(
        "this is no URL of a bus; write redis://HOST, rediss://USER:PASSWORD@HOST:PORT/NUMBER or redis+unix:///SOCKET"
    )]
    Url,
    /// The URL asks for TLS that trusts anybody.
    #[error(
        "a bus whose certificate is not checked is not used: leave `#insecure` out, and name its certificate's issuer"
    )]
    Insecure,
    /// There are certificates, and no TLS.
    #[error("certificates are for rediss:// alone")]
    NoTls,
    /// The certificates can't be read.
    #[error("the certificates for the bus can't be used: {0}")]
    Certificates(String),
    /// There are no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[source] io::Error),
}

/// A configuration that makes sense.
pub(super) struct Address {
    pub(super) client: Client,
    /// Where everybody of the farm publishes and listens.
    pub(super) channel: String,
    shown: String,
}

impl Address {
    pub(super) fn of(config: &Config) -> Result<Self, ConfigError> {
        let info = config.url.as_str().into_connection_info();
        let info = info.map_err(|_| ConfigError::Url)?;
        let shown = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(ConfigError::Insecure),
            addr => addr.to_string(),
        };
        let channel = format!("kiln.{}", info.redis_settings().db());
        let client = client(config, info)?;
        Ok(Self {
            client,
            channel,
            shown,
        })
    }
}

fn client(config: &Config, info: ConnectionInfo) -> Result<Client, ConfigError> {
    let given = info.redis_settings();
    // Without the number: pub/sub knows none, and a user may not be allowed to choose one.
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if let Some(user) = given.username() {
        settings = settings.set_username(user);
    }
    if let Some(password) = config.password.as_deref().or(given.password()) {
        settings = settings.set_password(password);
    }
    let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
    if config.ca.is_some() && !tls {
        return Err(ConfigError::NoTls);
    }
    let wrong = |error: redis::RedisError| ConfigError::Certificates(error.to_string());
    if !tls {
        return Client::open(info).map_err(|_| ConfigError::Url);
    }
    // The library takes a file without any for one that trusts nobody.
    let none = |pem: &Vec<u8>| !pem.windows(BEGIN.len()).any(|at| at == BEGIN);
    if config.ca.as_ref().is_some_and(none) {
        let text = "there is none in the file".to_owned();
        return Err(ConfigError::Certificates(text));
    }
    // The library takes the process's; where there is one already, that stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: config.ca.clone(),
    };
    Client::build_with_tls(info, certificates).map_err(wrong)
}

/// Without what is secret.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, ConfigError> {
        Address::of(&Config {
            url: url.to_owned(),
            ..Config::default()
        })
    }

    #[test]
    fn the_number_is_part_of_the_channel_and_nothing_else() {
        assert_eq!(address("redis://localhost").unwrap().channel, "kiln.0");
        let third = address("redis://localhost:7000/3").unwrap();
        assert_eq!(third.channel, "kiln.3");
        let settings = third.client.get_connection_info().redis_settings();
        assert_eq!(settings.db(), 0);
        assert_eq!(third.to_string(), "localhost:7000");
        assert!(address("redis+unix:///run/redis.sock").is_ok());
        assert!(address("rediss://localhost:7000").is_ok());
        let near = |url: &str| {
            let config = Config {
                url: url.to_owned(),
                ..Config::default()
            };
            config.is_near()
        };
        assert!(near("redis://127.0.0.1") && near("redis://localhost/1"));
        assert!(!near("redis://10.0.0.7") && !near("redis://cache"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let given = Config {
            url: "redis://ann:hidden@localhost".to_owned(),
            password: Some("hidden".to_owned()),
            ca: None,
        };
        let address = Address::of(&given).unwrap();
        let shown = format!("{given:?} {address} {address:?}");
        assert!(!shown.contains("hidden"), "{shown}");
        for wrong in [
            "redis://:hidden@",
            "hidden",
            "redis://ann:hidden@host:port",
            "http://a:hidden@b",
        ] {
            let error = super::Address::of(&Config {
                url: wrong.to_owned(),
                ..Config::default()
            });
            let text = error.unwrap_err().to_string();
            assert!(!text.contains("hidden"), "{text}");
        }
    }

    #[test]
    fn what_trusts_anybody_or_nobody_is_refused() {
        let error = address("rediss://localhost/#insecure").unwrap_err();
        assert!(matches!(error, ConfigError::Insecure), "{error}");
        let with_ca = |url: &str, ca: &[u8]| {
            Address::of(&Config {
                url: url.to_owned(),
                ca: Some(ca.to_vec()),
                password: None,
            })
        };
        let error = with_ca("redis://localhost", b"").unwrap_err();
        assert!(matches!(error, ConfigError::NoTls), "{error}");
        let error = with_ca("rediss://localhost", b"no certificate").unwrap_err();
        assert!(matches!(error, ConfigError::Certificates(_)), "{error}");
    }
}
