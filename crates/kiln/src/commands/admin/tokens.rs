//! `kiln admin token`.

use kiln_core::farm::{Grants, TokenId};
use kiln_store::{Store, model::User, token};

use super::{date, done, failed, users::username};
use crate::{
    cli::farm::{TokenArgs, TokenCommand},
    exit::{Exit, Failure},
    ui,
};

/// Runs the command.
pub async fn run(store: &Store, args: &TokenArgs) -> Result<Exit, Failure> {
    match (&args.command, &args.name, &args.grants) {
        (Some(TokenCommand::List { name }), ..) => list(store, &user(store, name).await?).await,
        (Some(TokenCommand::Revoke { id }), ..) => {
            let found = store.revoke_token(TokenId(*id)).await.map_err(failed)?;
            done(found, "token", &id.to_string())
        }
        (None, Some(name), Some(grants)) => {
            let grants: Grants = grants
                .parse()
                .map_err(|error| Failure::usage(format!("--grants: {error}")))?;
            make(store, &user(store, name).await?, &grants, args.days).await
        }
        _ => Err(Failure::usage(
            "name a user, and what the token may do with --grants",
        )),
    }
}

async fn user(store: &Store, name: &str) -> Result<User, Failure> {
    let name = username(name)?;
    let found = store.user_by_name(name).await.map_err(failed)?;
    found.ok_or_else(|| {
        Failure::usage(format!(
            "there is no user {name}; `kiln admin user add {name} --email ADDRESS` makes one"
        ))
    })
}

async fn make(
    store: &Store,
    user: &User,
    grants: &Grants,
    days: Option<u32>,
) -> Result<Exit, Failure> {
    if user.revoked {
        return Err(Failure::usage(format!(
            "the user {} was revoked",
            user.username
        )));
    }
    let (token, hash) = token::make(token::Kind::User).map_err(Failure::host)?;
    let made = store
        .add_token(user.id, hash, grants, days)
        .await
        .map_err(failed)?;
    let end = made
        .expires
        .map(|end| format!(" until {}", date(end)))
        .unwrap_or_default();
    ui::note(&format!(
        "token {} of ~{} for {}{end}; it is shown once, here:",
        made.id, user.username, made.grants
    ));
    ui::line(&token);
    Ok(Exit::Success)
}

async fn list(store: &Store, user: &User) -> Result<Exit, Failure> {
    for token in store.tokens(user.id).await.map_err(failed)? {
        let end = match (token.revoked, token.expires) {
            (true, _) => "revoked".to_owned(),
            (false, Some(end)) => format!("until {}", date(end)),
            (false, None) => String::new(),
        };
        let row = format!(
            "{:>5}  {}  {:<45} {end}",
            token.id,
            date(token.created),
            token.grants
        );
        ui::line(row.trim_end());
    }
    Ok(Exit::Success)
}
