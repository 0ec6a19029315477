//! How guests run here: by really booting a kernel.

use std::{path::PathBuf, time::Duration};

use kiln_vm::qemu::accelerator::{Accelerator, TCG_WARNING};

use super::finding::Finding;
use crate::{exit::Failure, host::machine};

/// Asks anew: whoever calls a doctor has often just changed something.
pub async fn look(images: PathBuf) -> Vec<Finding> {
    machine::forget_accelerator();
    // No guest is booted, so its deadline does not matter.
    let host = machine::look(&images, Duration::ZERO).await;
    vec![judge(host.map(|host| host.accelerator))]
}

fn judge(found: Result<Accelerator, Failure>) -> Finding {
    match found {
        Ok(Accelerator::Kvm) => Finding::ok("accelerator: KVM; a kernel came up under it"),
        // The reason has the remedy, where there is one.
        Ok(Accelerator::Tcg { reason }) => {
            Finding::warning(format!("accelerator: {TCG_WARNING}"), reason)
        }
        Err(failure) => Finding::broken(
            format!("accelerator: {}", failure.message),
            "see the line on namespaces",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_kvm_is_a_warning_with_reason_and_effect() {
        let reason = "KVM was tried and does not work here: x".to_owned();
        let finding = judge(Ok(Accelerator::Tcg { reason }));
        assert!(!finding.is_broken());
        let line = finding.to_string();
        assert!(
            line.starts_with("--  accelerator: guests are emulated, some 10 to 20 times slower"),
            "{line}"
        );
        assert!(
            line.ends_with(" — KVM was tried and does not work here: x"),
            "{line}"
        );
    }

    #[test]
    fn a_host_that_can_not_be_looked_at_is_broken() {
        assert!(judge(Err(Failure::host("mount /proc"))).is_broken());
    }
}
