//! Why a host does not let us have namespaces: the settings that are in the
//! way, by their names.

use std::path::Path;

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

/// What the host's settings say.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether the kernel knows user namespaces at all.
    pub known: bool,
    /// The first limit that is 0.
    pub exhausted: Option<&'static str>,
    /// [`UNPRIVILEGED`] is 0.
    pub unprivileged_off: bool,
    /// [`APPARMOR`] is on.
    pub apparmor: bool,
    /// A filter of system calls is over us, as in a container.
    pub filtered: bool,
}

impl Settings {
    /// As they are now.
    pub fn read() -> Self {
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
    pub fn cause(&self, program: &Path) -> (String, String) {
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

    #[test]
    fn a_filter_is_mode_two() {
        assert!(filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!filtered("Seccomp:\t0\nSeccomp_filters:\t2\n"));
    }
}
