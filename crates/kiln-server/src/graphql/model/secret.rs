//! Secrets: in the schema, and none of them here yet.

use async_graphql::{Interface, Object, SimpleObject};

use super::{
    Never,
    directives::worker,
    scalars::{Binary, Cursor, Time},
    user::Entity,
};

/// Something that jobs are given and nobody else sees.
#[derive(Debug, Interface)]
#[graphql(
    field(name = "id", ty = "i32"),
    field(name = "created", ty = "Time"),
    field(name = "uuid", ty = "String"),
    field(name = "name", ty = "Option<String>"),
    field(
        name = "fromUser",
        method = "origin",
        ty = "Option<Entity>",
        desc = "Set when this secret was copied from another user account"
    )
)]
pub(in super::super) enum Secret {
    /// A key for SSH.
    Ssh(SshKey),
    /// A key for PGP.
    Pgp(PgpKey),
    /// A file.
    File(SecretFile),
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $graphql:literal { $($fields:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(in super::super) struct $name(Never);

        $(#[$doc])*
        #[Object(name = $graphql)]
        impl $name {
            async fn id(&self) -> i32 {
                self.0.none()
            }

            async fn created(&self) -> Time {
                self.0.none()
            }

            async fn uuid(&self) -> String {
                self.0.none()
            }

            async fn name(&self) -> Option<String> {
                self.0.none()
            }

            #[graphql(name = "fromUser")]
            async fn origin(&self) -> Option<Entity> {
                self.0.none()
            }

            $($fields)*
        }
    };
}

secret! {
    /// A key for SSH.
    SshKey, "SSHKey" {
        #[graphql(directive = worker::apply())]
        async fn private_key(&self) -> Binary {
            self.0.none()
        }
    }
}

secret! {
    /// A key for PGP.
    PgpKey, "PGPKey" {
        #[graphql(directive = worker::apply())]
        async fn private_key(&self) -> Binary {
            self.0.none()
        }
    }
}

secret! {
    /// A file.
    SecretFile, "SecretFile" {
        async fn path(&self) -> String {
            self.0.none()
        }

        async fn mode(&self) -> i32 {
            self.0.none()
        }

        #[graphql(directive = worker::apply())]
        async fn data(&self) -> Binary {
            self.0.none()
        }
    }
}

/// A cursor for enumerating a list of secrets
///
/// If there are additional results available, the cursor object may be passed
/// back into the same endpoint to retrieve another page. If the cursor is null,
/// there are no remaining results to return.
#[derive(Debug, SimpleObject, Default)]
pub(in super::super) struct SecretCursor {
    results: Vec<Secret>,
    cursor: Option<Cursor>,
}
