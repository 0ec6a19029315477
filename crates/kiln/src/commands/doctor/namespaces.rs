//! Whether this host lets us have namespaces, by making some; and why not.

use std::path::Path;

use kiln_vm::namespace::{self, Isolation, Namespace};

use super::finding::Finding;
use crate::host::namespaces::Settings;

/// What follows where there are none.
const EFFECT: &str = "guests run as ordinary processes of this host and have no network";

/// Makes namespaces. The second is whether that worked.
pub async fn look(program: &Path) -> (Vec<Finding>, bool) {
    let config = namespace::Config::new(program.to_owned(), Isolation::Namespaces);
    match Namespace::create(&config).await {
        Ok(namespace) => {
            namespace.destroy().await;
            (
                vec![Finding::ok("namespaces: made, guests run in their own")],
                true,
            )
        }
        Err(error) => (vec![refused(&error, &Settings::read(), program)], false),
    }
}

/// `kiln run` goes on without namespaces where the kernel forbids them, and
/// without network then; it does not where they come and are of no use.
fn refused(error: &namespace::Error, settings: &Settings, program: &Path) -> Finding {
    let (cause, remedy) = settings.cause(program);
    match error {
        namespace::Error::Forbidden(reason) => {
            // The kernel's word for a limit of 0 is that the disk is full.
            let why = if settings.exhausted.is_some() {
                cause
            } else {
                format!("{reason}; {cause}")
            };
            Finding::warning(
                format!("namespaces: this host forbids user namespaces ({why}); {EFFECT}"),
                remedy,
            )
        }
        other => Finding::broken(
            format!("namespaces: they can be made and not used ({other}; {cause})"),
            remedy,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Settings {
        Settings {
            known: true,
            ..Settings::default()
        }
    }

    fn line(settings: &Settings) -> String {
        let error = namespace::Error::Forbidden("Operation not permitted".into());
        refused(&error, settings, Path::new("/opt/kiln")).to_string()
    }

    #[test]
    fn each_cause_has_its_remedy() {
        let limit = line(&Settings {
            exhausted: Some("user.max_net_namespaces"),
            ..open()
        });
        assert!(
            limit.contains("(user.max_net_namespaces is 0); guests run as"),
            "{limit}"
        );
        assert!(
            limit.contains(" — as root: sysctl -w user.max_net_namespaces=65536"),
            "{limit}"
        );
        let debian = line(&Settings {
            unprivileged_off: true,
            ..open()
        });
        assert!(
            debian.contains("(Operation not permitted; kernel.unprivileged_userns_clone is 0)"),
            "{debian}"
        );
        assert!(
            debian.contains("sysctl -w kernel.unprivileged_userns_clone=1"),
            "{debian}"
        );
        let ubuntu = line(&Settings {
            apparmor: true,
            ..open()
        });
        assert!(
            ubuntu.contains("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
            "{ubuntu}"
        );
        assert!(
            ubuntu.contains("profile kiln /opt/kiln flags=(unconfined)"),
            "{ubuntu}"
        );
        let container = line(&Settings {
            filtered: true,
            ..open()
        });
        assert!(container.contains("seccomp=unconfined"), "{container}");
        assert!(line(&Settings::default()).contains("CONFIG_USER_NS"));
        assert!(line(&open()).contains("security modules"));
    }

    #[test]
    fn only_namespaces_that_come_and_are_of_no_use_are_in_the_way() {
        let forbidden = namespace::Error::Forbidden("no".into());
        assert!(!refused(&forbidden, &open(), Path::new("/k")).is_broken());
        let helper = namespace::Error::Helper("mount /proc: no".into());
        assert!(refused(&helper, &open(), Path::new("/k")).is_broken());
    }
}
