//! Who may do what: the only place that decides it.
//!
//! | asks | with | may |
//! |---|---|---|
//! | nobody | – | open pages and artifacts of jobs that are not private, by their link |
//! | a job's token | – | read that job, its tasks, logs and artifacts |
//! | a person | the grant | its own; read others' jobs that are not private |
//! | an admin | the grant | everybody's; workers |
//!
//! What somebody may not see looks to it as if it were not there. Pure.

use kiln_core::farm::{Access, Grants, JobId, Kind, Scope, UserId, Visibility};
use kiln_store::model::{Job, User};

use super::{Actor, Error, Result};

/// What one says to those who come without a token.
pub(crate) const NO_TOKEN: Error =
    Error::Unauthenticated("this needs a token; send `Authorization: Bearer <token>`");

/// Something that somebody wants to do, with no job in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// To ask what this server is.
    Version,
    /// To see who people are, itself among them.
    Profile,
    /// To list jobs, and what of its own waits.
    ListJobs,
    /// To submit, and to group.
    Submit,
    /// To list its own secrets, or to have a job use them.
    ReadSecrets,
    /// To give a secret away.
    ShareSecret,
    /// To see, make or delete its webhooks.
    Webhooks,
    /// To see the workers.
    ListWorkers,
    /// To pause workers.
    PauseWorkers,
    /// To do what builds.sr.ht's own workers do by its API: nobody may. kiln's
    /// workers have leases, and a way of their own.
    Work,
}

/// Something that somebody wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To read it by the API: it, its tasks, its artifacts.
    Read,
    /// To read its logs.
    Logs,
    /// To see its page, logs and all: a link that people open in a browser.
    Page,
    /// To download what it made, by its link.
    Artifact,
    /// To start, cancel, group or change it.
    Change,
    /// To see which secrets it has.
    Secrets,
}

/// What is to be known of a job for this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Which.
    pub(crate) id: JobId,
    /// Whose.
    pub(crate) owner: UserId,
    /// Who sees it.
    pub(crate) visibility: Visibility,
}

impl From<&Job> for Target {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            owner: job.owner,
            visibility: job.visibility,
        }
    }
}

impl Deed {
    fn access(self) -> Option<Access> {
        let (scope, kind) = match self {
            Self::Version | Self::Webhooks | Self::Work => return None,
            Self::Profile => (Scope::Profile, Kind::Ro),
            Self::ListJobs | Self::ListWorkers => (Scope::Jobs, Kind::Ro),
            Self::Submit | Self::PauseWorkers => (Scope::Jobs, Kind::Rw),
            Self::ReadSecrets => (Scope::Secrets, Kind::Ro),
            Self::ShareSecret => (Scope::Secrets, Kind::Rw),
        };
        Some(Access(scope, kind))
    }
}

impl Wish {
    fn access(self) -> Access {
        match self {
            Self::Read | Self::Page | Self::Artifact => Access(Scope::Jobs, Kind::Ro),
            Self::Logs => Access(Scope::Logs, Kind::Ro),
            Self::Change => Access(Scope::Jobs, Kind::Rw),
            Self::Secrets => Access(Scope::Secrets, Kind::Ro),
        }
    }

    /// Whether the link alone is enough where the job is not private.
    fn by_link(self) -> bool {
        matches!(self, Self::Page | Self::Artifact)
    }
}

/// Whether what is this user's is this actor's to change: a person's own, and all for
/// an admin.
pub(crate) fn owns(actor: &Actor, owner: UserId) -> bool {
    let own = |user: &User| user.admin || user.id == owner;
    actor.person().is_some_and(own)
}

/// Whether this actor may do that.
///
/// # Errors
/// Why not.
pub(crate) fn may(actor: &Actor, deed: Deed) -> Result<()> {
    let grants = match actor {
        Actor::Nobody => return Err(NO_TOKEN),
        Actor::Job(_) => &Grants::default(),
        Actor::Person { grants, .. } => grants,
    };
    if let Some(missing) = deed.access().filter(|access| !grants.allow(*access)) {
        return Err(Error::MissingScope(missing));
    }
    match deed {
        Deed::Work => Err(Error::Forbidden(
            "this is for builds.sr.ht's own workers and refuses every token",
        )),
        Deed::Webhooks if actor.person().is_none() => {
            Err(Error::Forbidden("this is for people's tokens"))
        }
        Deed::ListWorkers | Deed::PauseWorkers if !actor.is_admin() => {
            Err(Error::Forbidden("this is for the farm's admins"))
        }
        _ => Ok(()),
    }
}

/// Whether this actor may want that of any job at all: asked before a job is
/// looked for, so that the answer does not tell whether there is one.
///
/// # Errors
/// Why not.
pub(crate) fn may_want(actor: &Actor, wish: Wish) -> Result<()> {
    match actor {
        _ if wish.by_link() => Ok(()),
        Actor::Nobody => Err(NO_TOKEN),
        Actor::Job(_) => match wish {
            Wish::Change | Wish::Secrets => Err(Error::MissingScope(wish.access())),
            Wish::Read | Wish::Logs | Wish::Page | Wish::Artifact => Ok(()),
        },
        Actor::Person { grants, .. } if grants.allow(wish.access()) => Ok(()),
        Actor::Person { .. } => Err(Error::MissingScope(wish.access())),
    }
}

/// Whether this actor may have that of this job.
///
/// # Errors
/// Why not.
pub(crate) fn may_have(actor: &Actor, wish: Wish, job: Target) -> Result<()> {
    may_want(actor, wish)?;
    let open = job.visibility != Visibility::Private;
    let (own, link) = match actor {
        Actor::Nobody => (false, open),
        Actor::Job(id) => (*id == job.id, false),
        Actor::Person { user, grants } => {
            // Of a link to something private only those hear of a missing grant who may see it.
            let own = user.id == job.owner || user.admin;
            if own && !open && !grants.allow(wish.access()) {
                return Err(Error::MissingScope(wish.access()));
            }
            (own, open)
        }
    };
    let by_visibility = match wish {
        Wish::Read | Wish::Logs | Wish::Page | Wish::Artifact => link,
        Wish::Change => false,
        // "Owner's own only": an admin's token opens no one's secrets.
        Wish::Secrets => {
            let owner = actor.person().is_some_and(|user| user.id == job.owner);
            return owner.then_some(()).ok_or(Error::Hidden("job"));
        }
    };
    (own || by_visibility)
        .then_some(())
        .ok_or(Error::Hidden("job"))
}

#[cfg(test)]
mod tests {
    use kiln_store::model::Moment;

    use super::*;

    const JOB: JobId = JobId(7);
    const WISHES: [Wish; 6] = [
        Wish::Read,
        Wish::Logs,
        Wish::Page,
        Wish::Artifact,
        Wish::Change,
        Wish::Secrets,
    ];

    fn person(id: i32, admin: bool, grants: &str) -> Actor {
        Actor::Person {
            user: User {
                id: UserId(id),
                username: "somebody".into(),
                email: "somebody@example.org".into(),
                admin,
                created: Moment(0),
                updated: Moment(0),
                revoked: false,
            },
            grants: grants.parse().unwrap_or_default(),
        }
    }

    /// One letter for each wish: yes, hidden, missing grant, no token.
    fn row(actor: &Actor, visibility: Visibility) -> String {
        let owner = UserId(1);
        let target = Target {
            id: JOB,
            owner,
            visibility,
        };
        let letter = |wish: &Wish| match may_have(actor, *wish, target) {
            Ok(()) => 'y',
            Err(Error::Hidden(_)) => 'h',
            Err(Error::MissingScope(_)) => 'm',
            Err(_) => 'n',
        };
        WISHES.iter().map(letter).collect()
    }

    #[test]
    fn the_matrix_of_who_may_have_what_of_a_job() {
        const ALL: &str = "JOBS:RW LOGS:RW SECRETS:RW PROFILE:RW";
        // Each row: read, logs, page, artifact, change, secrets.
        for (name, actor, open, private) in [
            ("nobody", Actor::Nobody, "nnyynn", "nnhhnn"),
            ("its token", Actor::Job(JOB), "yyyymm", "yyyymm"),
            ("another's token", Actor::Job(JobId(8)), "hhhhmm", "hhhhmm"),
            ("owner", person(1, false, ALL), "yyyyyy", "yyyyyy"),
            ("other", person(2, false, ALL), "yyyyhh", "hhhhhh"),
            ("admin", person(3, true, ALL), "yyyyyh", "yyyyyh"),
            ("reader", person(1, false, "JOBS:RO"), "ymyymm", "ymyymm"),
            ("logs only", person(1, false, "LOGS:RO"), "myyymm", "mymmmm"),
            (
                "other, logs",
                person(2, false, "LOGS:RO"),
                "myyymm",
                "mhhhmm",
            ),
            (
                "weak admin",
                person(3, true, "PROFILE:RO"),
                "mmyymm",
                "mmmmmm",
            ),
        ] {
            assert_eq!(row(&actor, Visibility::Public), open, "{name}, public");
            assert_eq!(row(&actor, Visibility::Unlisted), open, "{name}, unlisted");
            assert_eq!(row(&actor, Visibility::Private), private, "{name}, private");
        }
    }

    #[test]
    fn what_may_be_wanted_at_all_does_not_depend_on_whether_there_is_such_a_job() {
        for actor in [
            Actor::Nobody,
            Actor::Job(JobId(8)),
            person(2, false, "LOGS:RO"),
            person(2, false, "JOBS:RW"),
        ] {
            for wish in WISHES {
                let private = Target {
                    id: JOB,
                    owner: UserId(1),
                    visibility: Visibility::Private,
                };
                let there = may_have(&actor, wish, private).map_err(|error| error.to_string());
                let not = may_want(&actor, wish).and(Err(Error::Hidden("job")));
                assert_eq!(there, not.map_err(|error| error.to_string()), "{wish:?}");
            }
        }
    }
}
