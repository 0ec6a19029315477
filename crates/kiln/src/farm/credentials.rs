//! Which farm, and the token for it: the command line's, the environment's, or
//! what `kiln login` kept.

use std::{
    env,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    cli::client::FarmArgs,
    exit::Failure,
    host::{paths, private},
};

/// The farm when nobody names one: `kiln serve`'s default.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// The file of `kiln login`.
const FILE: &str = "login.json";

/// What is needed to speak with a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Its URL.
    pub server: String,
    /// The user's token.
    pub token: String,
    /// Further certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Whether plain HTTP to another host is allowed.
    #[serde(default)]
    pub insecure: bool,
}

/// What is meant. The login's token is for the login's server alone.
///
/// # Errors
/// When no server or no token is known.
pub fn find(args: &FarmArgs) -> Result<Credentials, Failure> {
    let kept = kept()?;
    let server = match (&args.server, &kept) {
        (Some(server), _) => server.trim_end_matches('/').to_owned(),
        (None, Some(kept)) => kept.server.clone(),
        (None, None) => {
            return Err(Failure::usage(
                "no farm is known: `kiln login URL` once, or give --server URL (or $KILN_SERVER)",
            ));
        }
    };
    let kept = kept.filter(|kept| kept.server == server);
    let token = match given_token(args)? {
        Some(token) => token,
        None => match &kept {
            Some(kept) => kept.token.clone(),
            None => {
                return Err(Failure::usage(format!(
                    "there is no token for {server}: `kiln login {server}` once, or give --token-file FILE (or $KILN_TOKEN)"
                )));
            }
        },
    };
    Ok(Credentials {
        server,
        token,
        ca: args
            .ca
            .clone()
            .or_else(|| kept.as_ref().and_then(|kept| kept.ca.clone())),
        insecure: args.insecure || kept.is_some_and(|kept| kept.insecure),
    })
}

/// A token that the command line or the environment gives.
///
/// # Errors
/// When the file can't be read, or others can read it too.
pub fn given_token(args: &FarmArgs) -> Result<Option<String>, Failure> {
    if let Some(file) = &args.token_file {
        return private::token(file).map(Some);
    }
    match env::var("KILN_TOKEN") {
        Ok(token) if !token.trim().is_empty() => Ok(Some(token.trim().to_owned())),
        _ => Ok(None),
    }
}

/// Where a login is kept.
pub fn file() -> Result<PathBuf, Failure> {
    Ok(paths::settings()?.join(FILE))
}

fn kept() -> Result<Option<Credentials>, Failure> {
    let file = file()?;
    if !file.exists() {
        return Ok(None);
    }
    let text = private::read(&file)?;
    let read = serde_json::from_str(&text);
    read.map(Some).map_err(|error| {
        Failure::usage(format!(
            "{}: {error}; `kiln login` writes it anew",
            file.display()
        ))
    })
}

/// Keeps a login, for the user alone.
///
/// # Errors
/// When it can't be written.
pub fn keep(credentials: &Credentials) -> Result<PathBuf, Failure> {
    let file = file()?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    // Our own texts and paths: they have a JSON form.
    let text = serde_json::to_string_pretty(credentials).unwrap_or_default();
    private::write(dir, &file, text.as_bytes())
        .map_err(|error| Failure::host(format!("{}: {error}", file.display())))?;
    Ok(file)
}
