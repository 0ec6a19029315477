//! `kiln login`.

use std::io::{BufRead as _, IsTerminal as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;

use crate::{
    cli::client::LoginArgs,
    exit::{Exit, Failure},
    farm::{
        Farm, FarmError,
        credentials::{self, Credentials, DEFAULT_SERVER},
    },
    ui,
};

/// Runs the command.
pub async fn run(args: &LoginArgs) -> Result<Exit, Failure> {
    let named = args.url.as_ref().or(args.farm.server.as_ref());
    let server = named.map_or(DEFAULT_SERVER, String::as_str);
    let token = match credentials::given_token(&args.farm)? {
        Some(token) => token,
        None => tokio::task::spawn_blocking(ask)
            .await
            .map_err(Failure::host)??,
    };
    let ca = args.farm.ca.as_ref().map(std::path::absolute).transpose();
    let credentials = Credentials {
        server: server.trim_end_matches('/').to_owned(),
        token,
        ca: ca.map_err(Failure::usage)?,
        insecure: args.farm.insecure,
    };
    let who = who(&Farm::with(&credentials)?).await?;
    let file = credentials::keep(&credentials)?;
    ui::note(&format!(
        "logged in at {}{}; the token is in {}",
        credentials.server,
        who.map(|who| format!(" as {who}")).unwrap_or_default(),
        file.display()
    ));
    Ok(Exit::Success)
}

/// Whose token it is, if it may say so. One that is no good is refused.
async fn who(farm: &Farm) -> Result<Option<String>, Failure> {
    match farm.query("{ me { canonicalName } }", &json!({})).await {
        Ok(data) => Ok(data["me"]["canonicalName"].as_str().map(str::to_owned)),
        Err(FarmError::Refused(why)) => {
            // It may be one without PROFILE:RO.
            farm.query("{ version { major } }", &json!({}))
                .await
                .map_err(|_| Failure::usage(why))?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The token from standard input, not shown where that is a terminal.
fn ask() -> Result<String, Failure> {
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    if terminal {
        ui::note("the token (`kiln admin token` makes one); it is not shown:");
    }
    let hidden = terminal.then(|| tcgetattr(&stdin).ok()).flatten();
    if let Some(before) = &hidden {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &quiet).map_err(Failure::host)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &hidden {
        tcsetattr(&stdin, OptionalActions::Now, before).map_err(Failure::host)?;
    }
    read.map_err(Failure::host)?;
    match line.trim() {
        "" => Err(Failure::usage(
            "no token was given; --token-file FILE reads one",
        )),
        token => Ok(token.to_owned()),
    }
}
