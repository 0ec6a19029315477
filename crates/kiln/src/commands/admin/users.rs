//! `kiln admin user`.

use kiln_core::farm::limits;
use kiln_store::Store;

use super::{date, done, failed};
use crate::{
    cli::farm::UserCommand,
    exit::{Exit, Failure},
    ui,
};

/// Runs the command.
pub async fn run(store: &Store, command: &UserCommand) -> Result<Exit, Failure> {
    match command {
        UserCommand::Add { name, email, admin } => {
            let name = username(name)?;
            let email = address(email)?;
            let user = store.add_user(name, email, *admin).await.map_err(failed)?;
            ui::note(&format!(
                "~{0} is there; `kiln admin token {0} --grants \"JOBS:RW LOGS:RO PROFILE:RO\"` makes a token",
                user.username
            ));
            Ok(Exit::Success)
        }
        UserCommand::List => {
            for user in store.users().await.map_err(failed)? {
                let admin = if user.admin { "admin" } else { "" };
                let revoked = if user.revoked { "revoked" } else { "" };
                let row = format!(
                    "{:<20} {:<30} {} {admin:<5} {revoked}",
                    user.username,
                    user.email,
                    date(user.created)
                );
                ui::line(row.trim_end());
            }
            Ok(Exit::Success)
        }
        UserCommand::Revoke { name } => {
            let name = username(name)?;
            done(store.revoke_user(name).await.map_err(failed)?, "user", name)
        }
    }
}

/// A name that can stand in URLs, as builds.sr.ht has them.
pub fn username(name: &str) -> Result<&str, Failure> {
    let name = name.strip_prefix('~').unwrap_or(name);
    let letters =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match first && name.len() <= limits::USERNAME && name.bytes().all(letters) {
        true => Ok(name),
        false => Err(Failure::usage(format!(
            "`{name}` can't be a user's name; use 1 to {} lower-case letters, digits, - and _, and begin with a letter",
            limits::USERNAME
        ))),
    }
}

fn address(email: &str) -> Result<&str, Failure> {
    let right = email
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    match right
        && email.len() <= limits::EMAIL
        && !email.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        true => Ok(email),
        false => Err(Failure::usage(format!("`{email}` is no address of mail"))),
    }
}
