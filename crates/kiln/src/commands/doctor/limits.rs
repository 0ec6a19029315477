//! What limits the memory, processes and processor time of guests here.

use kiln_vm::cgroup::{Cgroups, Version};

use super::finding::Finding;
use crate::host::machine;

/// Looks whether guests have cgroups.
pub fn look() -> Vec<Finding> {
    vec![judge(
        machine::cgroups(),
        rustix::process::geteuid().is_root(),
    )]
}

fn judge(found: Result<Cgroups, String>, root: bool) -> Finding {
    let reason = match found {
        Ok(cgroups) => {
            let version = match cgroups.version() {
                Version::One => 1,
                Version::Two => 2,
            };
            let limited = cgroups.limited();
            return Finding::ok(format!(
                "limits: each guest has a cgroup (version {version}: {limited})"
            ));
        }
        Err(reason) => reason,
    };
    // The kernel does not count root's processes.
    let (held, user) = match root {
        true => ("the size of files and of each process", ""),
        false => (
            "the size of files and of each process, and their number",
            "--user ",
        ),
    };
    Finding::warning(
        format!("limits: guests have no cgroup, only resource limits, which hold {held}: {reason}"),
        format!(
            "where there is systemd: Delegate=yes for kiln's service, or systemd-run {user}--scope -p Delegate=yes kiln run"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_cgroups_is_told_what_holds_and_how_to_get_them() {
        let line = |root| judge(Err("no".into()), root).to_string();
        assert!(
            line(false).starts_with("--  limits: guests have no cgroup, only resource limits, which hold the size of files and of each process, and their number: no — "),
            "{}",
            line(false)
        );
        assert!(
            line(false).ends_with("systemd-run --user --scope -p Delegate=yes kiln run"),
            "{}",
            line(false)
        );
        assert!(
            line(true).ends_with("systemd-run --scope -p Delegate=yes kiln run"),
            "{}",
            line(true)
        );
    }
}
