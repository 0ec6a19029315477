//! QEMU's command line.
//!
//! The machine is builds.sr.ht's (images.md): a virtio network card on a user
//! network, a random source, a balloon, one disk, no display. On top of what
//! the image asks for it has kiln's control socket, the console, and a panic
//! device; QEMU may neither start programs nor raise its rights.

use std::{path::Path, process::Stdio, time::Duration};

use super::arguments::{self, Checked};
use crate::{image::functions::BootRequest, namespace::SYSTEM_PATH};

/// Upstream's default.
pub(super) const DEFAULT_MEMORY_MIB: u32 = 4096;
/// Where the guest's SSH server is to be found inside the namespace. The
/// guest's 10.0.2.2 is 127.0.0.1 there, so that this is out of its reach.
pub(super) const SSH_ADDRESS: (std::net::Ipv4Addr, u16) =
    (std::net::Ipv4Addr::new(127, 0, 0, 2), 2222);

/// What is not in the image's own words.
pub(super) struct Hardware<'a> {
    /// The guest's architecture.
    pub arch: &'a str,
    /// Whether under KVM.
    pub kvm: bool,
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB, when the job asks for it.
    pub memory_mib: Option<u32>,
    /// The writable layer of the disk.
    pub overlay: &'a Path,
    /// Whether the guest has any network besides our SSH.
    pub networked: bool,
    /// Whether QEMU runs in a network namespace.
    pub isolated: bool,
    /// Memory that is given to QEMU.
    pub ram: Option<Ram>,
    /// Whether QEMU waits for its devices' state.
    pub incoming: bool,
}

/// How a guest's memory is mapped from a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ram {
    /// What the guest writes is in the file: a template is being made.
    Shared,
    /// What the guest writes is its own.
    Private,
}

/// A finished command line.
pub(super) struct CommandLine {
    /// `{fd0}` is the control socket, `{fd1}` the console, `{fd2}` the port of
    /// the helper in the guest, `{fd3}` the memory where it is given.
    pub argv: Vec<String>,
    /// The guest's SSH port.
    pub guest_port: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// QEMU's name for guests of this architecture, where kiln knows one.
#[must_use]
pub fn binary(arch: &str) -> Option<&'static str> {
    match kiln_core::arch::canonical(arch) {
        "x86_64" => Some("qemu-system-x86_64"),
        "aarch64" => Some("qemu-system-aarch64"),
        "ppc64le" => Some("qemu-system-ppc64"),
        "riscv64" => Some("qemu-system-riscv64"),
        "s390x" => Some("qemu-system-s390x"),
        _ => None,
    }
}

/// QEMU's name for guests of the host's own architecture.
pub(super) fn host_binary() -> &'static str {
    binary(std::env::consts::ARCH).unwrap_or("qemu-system-x86_64")
}

/// What `--version` says first, of the program that guests will run.
pub(super) async fn version(binary: &str) -> Option<String> {
    const DEADLINE: Duration = Duration::from_secs(10);
    let output = tokio::process::Command::new(binary)
        .arg("--version")
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

/// Checks what the image asks for and completes it.
///
/// # Errors
/// A sentence that names the word which kiln refuses.
pub(super) fn build(
    request: &BootRequest,
    dir: &Path,
    hardware: &Hardware<'_>,
) -> Result<CommandLine, String> {
    let checked = arguments::check(&request.arguments, dir)?;
    let usual = binary(hardware.arch);
    let qemu = match request.variables.qemu.as_deref() {
        Some(name) if known_binary(name) => name,
        Some(name) => {
            return Err(format!(
                "`functions` sets qemu to `{name}`, which is no QEMU"
            ));
        }
        None => usual.ok_or_else(|| {
            format!(
                "kiln knows no QEMU for {}; set `qemu` in `functions`",
                hardware.arch
            )
        })?,
    };
    let memory_mib = hardware
        .memory_mib
        .or(checked.memory)
        .or(request.variables.memory)
        .unwrap_or(DEFAULT_MEMORY_MIB);
    let guest_port = request.variables.guestport.unwrap_or(22);
    let mut line = Line(vec![qemu.to_owned()]);
    line.words("-nodefaults -no-user-config -display none -no-reboot");
    line.words("-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.accelerator(hardware, &checked);
    line.words(&format!("-smp {} -m {memory_mib}", hardware.cpus));
    line.0.extend(adapt(checked.words, hardware.kvm));
    line.memory(hardware, memory_mib);
    line.disk(request, hardware)?;
    line.network(hardware, guest_port);
    line.words("-device virtio-rng-pci -device virtio-balloon-pci");
    if kiln_core::arch::same(hardware.arch, "x86_64") {
        line.words("-device pvpanic");
        // A clone's kernel reseeds by itself where it knows this device, as Debian
        // 13's does. A microvm has no place for it.
        if !arguments::is_microvm(&request.arguments) {
            line.words("-device vmgenid,guid=auto");
        }
    }
    line.words("-chardev socket,id=control,fd={fd0} -mon chardev=control,mode=control");
    line.words("-chardev socket,id=console,fd={fd1} -serial chardev:console");
    line.words("-device virtio-serial-pci -chardev socket,id=guest,fd={fd2}");
    // By its id QEMU tells of its end.
    line.words("-device virtserialport,id=helper,chardev=guest,name=kiln");
    Ok(CommandLine {
        argv: line.0,
        guest_port,
        memory_mib,
    })
}

/// `qemu-system-` and letters: not a path, not another program.
fn known_binary(name: &str) -> bool {
    name.strip_prefix("qemu-system-").is_some_and(|arch| {
        !arch.is_empty()
            && arch
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// `-cpu host` exists only under KVM.
fn adapt(words: Vec<String>, kvm: bool) -> impl Iterator<Item = String> {
    let mut after_cpu = false;
    words.into_iter().map(move |word| {
        let is_model = std::mem::replace(&mut after_cpu, word == "-cpu");
        if is_model && !kvm && (word == "host" || word.starts_with("host,")) {
            word.replacen("host", "max", 1)
        } else {
            word
        }
    })
}

struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    fn accelerator(&mut self, hardware: &Hardware<'_>, checked: &Checked) {
        let accel = if hardware.kvm {
            "kvm"
        } else {
            "tcg,thread=multi"
        };
        self.words(&format!("-accel {accel}"));
        if !checked.machine && kiln_core::arch::same(hardware.arch, "aarch64") {
            self.words("-M virt");
        }
        if !checked.cpu {
            self.words(if hardware.kvm {
                "-cpu host"
            } else {
                "-cpu max"
            });
        }
    }

    /// A template's memory is a file that the clones map privately
    /// (docs/decisions: templates).
    fn memory(&mut self, hardware: &Hardware<'_>, memory_mib: u32) {
        if let Some(ram) = hardware.ram {
            let share = match ram {
                Ram::Shared => "on",
                Ram::Private => "off",
            };
            self.words(&format!(
                "-object memory-backend-file,id=ram,size={memory_mib}M,mem-path=/proc/self/fd/{{fd3}},share={share} -machine memory-backend=ram"
            ));
        }
        if hardware.incoming {
            self.words("-incoming defer");
        }
    }

    /// The overlay is thrown away, so nothing of it needs to be safe on disk;
    /// a full host is an I/O error in the guest, not a guest that stands still.
    fn disk(&mut self, request: &BootRequest, hardware: &Hardware<'_>) -> Result<(), String> {
        let options = match request.variables.driveopts.as_deref() {
            Some(options) => arguments::check_drive(options)?,
            None => "if=virtio".to_owned(),
        };
        let options = options
            .split(',')
            .filter(|option| !option.starts_with("cache="))
            .collect::<Vec<_>>()
            .join(",");
        let file = hardware.overlay.display().to_string().replace(',', ",,");
        self.pair(
            "-drive",
            format!("file={file},format=qcow2,cache=unsafe,discard=unmap,werror=report,rerror=report,{options}"),
        );
        Ok(())
    }

    fn network(&mut self, hardware: &Hardware<'_>, guest_port: u16) {
        let restrict = if hardware.networked {
            ""
        } else {
            ",restrict=on"
        };
        let (address, port) = if hardware.isolated {
            SSH_ADDRESS
        } else {
            // The kernel chooses; read back over the control socket.
            (std::net::Ipv4Addr::LOCALHOST, 0)
        };
        self.pair(
            "-netdev",
            format!(
                "user,id=network,ipv6=off{restrict},hostfwd=tcp:{address}:{port}-:{guest_port}"
            ),
        );
        self.words("-device virtio-net-pci,netdev=network,romfile=");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::functions::Variables;

    fn hardware(kvm: bool) -> Hardware<'static> {
        Hardware {
            arch: "amd64",
            kvm,
            cpus: 2,
            memory_mib: None,
            overlay: Path::new("/run/a,b/overlay.qcow2"),
            networked: true,
            isolated: true,
            ram: None,
            incoming: false,
        }
    }

    fn request(arguments: &[&str], variables: Variables) -> BootRequest {
        BootRequest {
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            variables,
        }
    }

    #[test]
    fn the_processor_of_kvm_is_replaced_where_there_is_no_kvm() {
        let asked = request(&["-cpu", "host"], Variables::default());
        let line = build(&asked, Path::new("/"), &hardware(false)).unwrap();
        assert!(line.argv.join(" ").contains("-cpu max"));
        let line = build(&asked, Path::new("/"), &hardware(true)).unwrap();
        assert!(line.argv.join(" ").contains("-cpu host"));
    }

    #[test]
    fn a_comma_in_a_path_begins_no_option() {
        let line = build(&BootRequest::default(), Path::new("/"), &hardware(false)).unwrap();
        assert!(
            line.argv
                .iter()
                .any(|word| word.starts_with("file=/run/a,,b/overlay.qcow2,format=qcow2,"))
        );
    }

    #[test]
    fn only_qemu_can_be_named_as_qemu() {
        for name in [
            "sh",
            "/bin/sh",
            "qemu-system-x86_64 -D /x",
            "qemu-system-../sh",
        ] {
            let variables = Variables {
                qemu: Some(name.into()),
                ..Variables::default()
            };
            assert!(build(&request(&[], variables), Path::new("/"), &hardware(false)).is_err());
        }
    }

    #[test]
    fn without_a_network_the_guest_is_restricted() {
        let alone = Hardware {
            networked: false,
            ..hardware(false)
        };
        let line = build(&BootRequest::default(), Path::new("/"), &alone).unwrap();
        assert!(line.argv.join(" ").contains("restrict=on"));
    }
}
