//! Whether this host lets us have namespaces, by making some; and why not.

use std::path::Path;

use kiln_vm::namespace::{self, Isolation, Namespace};

use super::finding::Finding;

/// The limits on each kind of namespace that a guest has.
const MAXIMA: &[&str] = &[
    "user.max_user_namespaces",
    "user.max_mnt_namespaces",
    "user.max_pid_namespaces",
    "user.max_net_namespaces",
    "user.max_ipc_namespaces",
    "user.max_uts_namespaces",
];
/// Debian's and Arch's switch.
const UNPRIVILEGED: &str = "kernel.unprivileged_userns_clone";
/// Ubuntu's, since 23.10.
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";
/// What follows where there are none.
const EFFECT: &str = "guests run as ordinary processes of this host and have no network";

/// What the host's settings say.
#[derive(Debug, Clone, Default)]
struct Settings {
    /// Whether the kernel knows user namespaces at all.
    known: bool,
    /// The first limit that is 0.
    exhausted: Option<&'static str>,
    /// [`UNPRIVILEGED`] is 0.
    unprivileged_off: bool,
    /// [`APPARMOR`] is on.
    apparmor: bool,
    /// A filter of system calls is over us, as in a container.
    filtered: bool,
}

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

impl Settings {
    fn read() -> Self {
        let is = |name: &str, wanted: u64| sysctl(name) == Some(wanted);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            known: Path::new("/proc/self/ns/user").exists(),
            exhausted: MAXIMA.iter().copied().find(|&name| is(name, 0)),
            unprivileged_off: is(UNPRIVILEGED, 0),
            apparmor: is(APPARMOR, 1),
            filtered: filtered(&status),
        }
    }

    /// The likeliest cause, and the remedy.
    fn cause(&self, program: &Path) -> (String, String) {
        if !self.known {
            return (
                "the kernel knows none".into(),
                "boot a kernel that was built with CONFIG_USER_NS".into(),
            );
        }
        if let Some(name) = self.exhausted {
            return (format!("{name} is 0"), set(name, 65536));
        }
        if self.unprivileged_off {
            return (format!("{UNPRIVILEGED} is 0"), set(UNPRIVILEGED, 1));
        }
        if self.apparmor {
            let remedy = format!(
                "{}; or write into /etc/apparmor.d/kiln `abi <abi/4.0>, profile kiln {} flags=(unconfined) {{ userns, }}` and load it with apparmor_parser -r",
                set(APPARMOR, 0),
                program.display()
            );
            return (format!("AppArmor: {APPARMOR} is 1"), remedy);
        }
        if self.filtered {
            return (
                "a filter of system calls is over us, as containers have it".into(),
                "start the container with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or run kiln outside of it".into(),
            );
        }
        (
            "no setting that kiln knows says so".into(),
            "in a chroot, or in a container, run kiln outside of it; else look at the host's security modules".into(),
        )
    }
}

fn set(name: &str, value: u64) -> String {
    format!(
        "as root: sysctl -w {name}={value}, and the same line (`{name}={value}`) in /etc/sysctl.d/kiln.conf"
    )
}

fn sysctl(name: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The `Seccomp:` row of /proc/self/status is 2 under a filter.
fn filtered(status: &str) -> bool {
    let row = status.lines().find_map(|row| row.strip_prefix("Seccomp:"));
    row.is_some_and(|mode| mode.trim() == "2")
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

    #[test]
    fn a_filter_is_mode_two() {
        assert!(filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!filtered("Seccomp:\t0\nSeccomp_filters:\t2\n"));
    }
}
