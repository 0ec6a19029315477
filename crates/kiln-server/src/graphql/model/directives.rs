//! The directives that decorate the schema. They tell; `app::permission` decides.

use async_graphql::TypeDirective;

use super::enums::{AccessKind, AccessScope};

/// Used to provide a human-friendly description of an access scope
#[TypeDirective(location = "EnumValue")]
pub(in super::super) fn scopehelp(details: String) {}

/// This is used to decorate fields which are only accessible with a personal
/// access token, and are not available to clients using OAuth 2.0 access tokens.
#[TypeDirective(location = "FieldDefinition")]
pub(in super::super) fn private() {}

/// This is used to decorate fields which are for internal use, and are not
/// available to normal API users.
#[TypeDirective(location = "FieldDefinition")]
pub(in super::super) fn internal() {}

/// Decorates fields for which access requires a particular OAuth 2.0 scope with
/// read or write access.
#[TypeDirective(location = "FieldDefinition")]
pub(in super::super) fn access(scope: AccessScope, kind: AccessKind) {}

/// This used to decorate private resolvers which are only accessible to build
/// workers, and are used to facilitate the build process.
#[TypeDirective(location = "FieldDefinition")]
pub(in super::super) fn worker() {}
