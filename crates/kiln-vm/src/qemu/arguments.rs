//! Checks what an image's `boot` asks of QEMU.
//!
//! The words come from a script that nobody here wrote. QEMU has options that
//! read and write files of the host, run programs and open sockets, so only
//! what describes the guest's own hardware passes, and files only from the
//! image's directory (or the firmware that QEMU's packages install).

use std::path::{Component, Path, PathBuf};

/// Options whose value is free: it is for the guest's own eyes.
const FREE: &[&str] = &["-append", "-cpu", "-m"];
/// Options whose value is a list of `name=value`, and the names that an image
/// may use. A first word without `=` is a type.
const LISTS: &[(&str, &[&str])] = &[
    ("-boot", &["menu", "once", "order", "strict"]),
    ("-machine", MACHINE),
    ("-M", MACHINE),
    ("-rtc", &["base", "clock", "driftfix"]),
    ("-vga", &[]),
];
const MACHINE: &[&str] = &[
    "acpi",
    "gic-version",
    "graphics",
    "highmem",
    "hpet",
    "its",
    "kernel-irqchip",
    "smm",
    "type",
    "usb",
    "virtualization",
    "vmport",
];
/// Options without a value.
const BARE: &[&str] = &[
    "-no-acpi",
    "-no-hpet",
    "-usb",
    "-nodefaults",
    "-no-user-config",
];
/// Options that kiln sets itself; with the number of their values.
const OURS: &[(&str, usize)] = &[
    ("-accel", 1),
    ("-enable-kvm", 0),
    ("-nographic", 0),
    ("-display", 1),
    ("-name", 1),
    ("-serial", 1),
    ("-no-reboot", 0),
    ("-snapshot", 0),
    ("-smp", 1),
];
/// Options whose value is a file to read.
const FILES: &[&str] = &["-bios", "-dtb", "-initrd", "-kernel"];
/// Devices of a guest's own hardware.
const DEVICES: &[&str] = &[
    "VGA",
    "ahci",
    "e1000",
    "e1000e",
    "i6300esb",
    "ich9-ahci",
    "ide-cd",
    "ide-hd",
    "nec-usb-xhci",
    "nvme",
    "pcie-root-port",
    "pvpanic",
    "qemu-xhci",
    "ramfb",
    "rtl8139",
    "scsi-cd",
    "scsi-hd",
    "usb-ehci",
    "usb-kbd",
    "usb-mouse",
    "usb-tablet",
    "virtio-vga",
];
/// The same, whose names end with the bus that they are on.
const BUS_DEVICES: &[&str] = &[
    "virtio-balloon",
    "virtio-blk",
    "virtio-gpu",
    "virtio-keyboard",
    "virtio-net",
    "virtio-rng",
    "virtio-scsi",
];
const BUSES: &[&str] = &[
    "-ccw",
    "-device",
    "-pci",
    "-pci-non-transitional",
    "-pci-transitional",
];
/// Properties of a device that say nothing of the host.
const PROPERTIES: &[&str] = &[
    "addr",
    "bootindex",
    "bus",
    "chassis",
    "disable-legacy",
    "disable-modern",
    "drive",
    "id",
    "iommu_platform",
    "logical_block_size",
    "lun",
    "mac",
    "max-bytes",
    "max_outputs",
    "multifunction",
    "netdev",
    "num-queues",
    "period",
    "physical_block_size",
    "port",
    "rng",
    "scsi-id",
    "serial",
    "slot",
    "unit",
    "vectors",
    "write-cache",
    "xres",
    "yres",
];
/// Options of a disk's `-drive` that an image may choose.
const DRIVE_OPTIONS: &[&str] = &[
    "bootindex",
    "bus",
    "cache",
    "discard",
    "id",
    "if",
    "index",
    "media",
    "unit",
];
/// Where QEMU's packages put firmware.
const FIRMWARE: &[&str] = &[
    "/usr/share/AAVMF",
    "/usr/share/OVMF",
    "/usr/share/edk2",
    "/usr/share/ovmf",
    "/usr/share/qemu",
    "/usr/share/qemu-efi-aarch64",
    "/usr/share/seabios",
    "/usr/share/slof",
];

/// What is left of an image's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// For QEMU, as they were asked for.
    pub words: Vec<String>,
    /// Whether a machine type is among them.
    pub machine: bool,
    /// Whether a processor is among them.
    pub cpu: bool,
    /// The memory that was asked for with `-m`, in MiB.
    pub memory: Option<u32>,
}

/// Checks the arguments of `_boot`; `dir` is the image's directory.
///
/// # Errors
/// A sentence that names the word.
pub fn check(arguments: &[String], dir: &Path) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let mut words = arguments.iter();
    while let Some(option) = words.next() {
        // QEMU takes two dashes for one.
        let option = option
            .strip_prefix('-')
            .filter(|o| o.starts_with('-'))
            .unwrap_or(option);
        let mut value = || {
            let value = words.next();
            value
                .cloned()
                .ok_or_else(|| format!("`functions` gives QEMU's {option} no value"))
        };
        if let Some((_, values)) = OURS.iter().find(|(ours, _)| *ours == option) {
            for _ in 0..*values {
                value()?;
            }
            continue;
        }
        if BARE.contains(&option) {
            checked.words.push(option.to_owned());
            continue;
        }
        let names = LISTS.iter().find(|(list, _)| *list == option);
        let value = if FREE.contains(&option) {
            value()?
        } else if let Some((_, names)) = names {
            match list(option, &value()?, names)? {
                value if value.is_empty() => continue,
                value => value,
            }
        } else if FILES.contains(&option) {
            file(option, &value()?, dir)?
        } else if option == "-device" {
            device(value()?)?
        } else if option == "-drive" {
            firmware_drive(&value()?, dir)?
        } else if option == "-object" {
            random_object(value()?)?
        } else {
            return Err(format!(
                "`functions` asks for QEMU's option `{option}`, which kiln does not give to images"
            ));
        };
        checked.note(option, &value)?;
        if option != "-m" {
            checked.words.extend([option.to_owned(), value]);
        }
    }
    Ok(checked)
}

impl Checked {
    fn note(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            "-M" | "-machine" => self.machine = true,
            "-cpu" => self.cpu = true,
            "-m" => self.memory = Some(memory(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// Checks the image's `driveopts`.
///
/// # Errors
/// A sentence that names the word.
pub fn check_drive(options: &str) -> Result<String, String> {
    for option in options.split(',') {
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        if !DRIVE_OPTIONS.contains(&name) {
            return Err(format!(
                "`driveopts` of `functions` has `{option}`; kiln gives an image {}",
                DRIVE_OPTIONS.join(", ")
            ));
        }
    }
    Ok(options.to_owned())
}

/// A list of names that an image may use. The accelerator is kiln's to choose.
fn list(option: &str, value: &str, names: &[&str]) -> Result<String, String> {
    let mut kept = Vec::new();
    for (index, part) in value.split(',').enumerate() {
        match part.split_once('=') {
            Some(("accel", _)) if names == MACHINE => {}
            Some((name, _)) if names.contains(&name) => kept.push(part),
            None if index == 0 => kept.push(part),
            _ => {
                return Err(format!(
                    "`functions` gives QEMU's {option} `{part}`, which kiln does not give to images"
                ));
            }
        }
    }
    Ok(kept.join(","))
}

fn device(value: String) -> Result<String, String> {
    let mut parts = value.split(',');
    let name = parts.next().unwrap_or_default();
    if !is_harmless(name) {
        return Err(format!(
            "`functions` asks for the device `{name}`, which kiln does not give to images"
        ));
    }
    let plain = |part: &str| match part.split_once('=') {
        // No ROM is what keeps a card from reading one.
        Some(("romfile", value)) => value.is_empty(),
        Some((name, _)) => PROPERTIES.contains(&name),
        None => PROPERTIES.contains(&part),
    };
    match parts.find(|part| !plain(part)) {
        Some(part) => Err(format!(
            "`functions` gives the device `{name}` `{part}`, which kiln does not give to images"
        )),
        None => Ok(value),
    }
}

fn is_harmless(device: &str) -> bool {
    let on_a_bus = |base: &&str| {
        let bus = device.strip_prefix(*base);
        bus.is_some_and(|bus| BUSES.contains(&bus))
    };
    DEVICES.contains(&device) || BUS_DEVICES.iter().any(on_a_bus)
}

/// Firmware in flash, read-only and raw: what aarch64 images boot with.
fn firmware_drive(value: &str, dir: &Path) -> Result<String, String> {
    let mut path = None;
    let mut flash = false;
    for part in value.split(',') {
        match part.split_once('=') {
            Some(("if", "pflash")) => flash = true,
            Some(("file", file)) => path = Some(file),
            Some(("format", "raw") | ("unit", _) | ("readonly", "on")) => {}
            _ => {
                return Err(format!(
                    "`functions` gives QEMU's -drive `{part}`; kiln makes the disk itself"
                ));
            }
        }
    }
    match (flash, path) {
        (true, Some(path)) => {
            let path = file("-drive", path, dir)?;
            Ok(format!("if=pflash,format=raw,readonly=on,file={path}"))
        }
        _ => Err(
            "`functions` asks for a -drive; kiln makes the disk itself, only firmware may be named"
                .into(),
        ),
    }
}

fn random_object(value: String) -> Result<String, String> {
    let random = value.starts_with("rng-random,") || value == "rng-random";
    let plain = value.split(',').skip(1).all(|part| {
        part.starts_with("id=") || part == "filename=/dev/urandom" || part == "filename=/dev/random"
    });
    if random && plain {
        Ok(value)
    } else {
        Err(format!(
            "`functions` asks for the object `{value}`, which kiln does not give to images"
        ))
    }
}

/// A file of the image or of QEMU's firmware, whatever links lead there.
fn file(option: &str, name: &str, dir: &Path) -> Result<String, String> {
    let path = dir.join(name);
    let plain = !path.components().any(|part| part == Component::ParentDir);
    let real = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    let Some(found) = real(&path) else {
        return Err(format!(
            "`functions` gives QEMU's {option} `{name}`, which does not exist"
        ));
    };
    let mut roots = FIRMWARE.iter().map(PathBuf::from).chain([dir.to_owned()]);
    let inside = roots.any(|root| real(&root).is_some_and(|root| found.starts_with(root)));
    // A comma would begin another option of QEMU's.
    match found.to_str() {
        Some(found) if inside && plain && !found.contains(',') => Ok(found.to_owned()),
        _ => Err(format!(
            "`functions` gives QEMU's {option} `{name}`, which is outside the image"
        )),
    }
}

/// `-m 2048`, `-m 2G`, `-m size=2048M`.
fn memory(value: &str) -> Result<u32, String> {
    let size = value.split(',').next().unwrap_or_default();
    let size = size.strip_prefix("size=").unwrap_or(size);
    let (digits, factor) = match size.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (size.strip_suffix(['M', 'm']).unwrap_or(size), 1),
    };
    let number: Option<u32> = digits.parse().ok().and_then(|n: u32| n.checked_mul(factor));
    number.ok_or_else(|| format!("`functions` gives QEMU's -m `{value}`, which is no size"))
}

/// Whether the machine is the smallest of x86, which has no ACPI unless asked.
pub(super) fn is_microvm(words: &[String]) -> bool {
    words.windows(2).any(|pair| match pair {
        [option, value] => {
            ["-M", "-machine", "--machine"].contains(&option.as_str())
                && (value.starts_with("microvm") || value.contains("type=microvm"))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vmlinuz"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("leak")).unwrap();
        dir
    }

    #[test]
    fn what_real_images_ask_for_passes() {
        let dir = image();
        let kernel = dir.path().join("vmlinuz").display().to_string();
        let line = format!(
            "-M virt -cpu max -device virtio-blk-pci,drive=root -kernel {kernel} -append root=/dev/vda3 -m 2G -smp 2"
        );
        let checked = check(&words(&line), dir.path()).unwrap();
        assert!(checked.machine && checked.cpu);
        assert_eq!(checked.memory, Some(2048));
        assert!(!checked.words.contains(&"-m".to_owned()));
    }

    #[test]
    fn the_accelerator_is_not_the_images_to_choose() {
        let asked = words("-enable-kvm -accel kvm -machine q35,accel=kvm --nographic");
        let checked = check(&asked, Path::new("/")).unwrap();
        assert_eq!(checked.words, ["-machine", "q35"]);
    }

    #[test]
    fn whatever_touches_the_host_is_refused() {
        let dir = image();
        for line in [
            "-chardev socket,path=/x,id=a",
            "-monitor stdio",
            "-netdev user,id=x,guestfwd=tcp:10.0.2.9:1-cmd:id",
            "-drive file=/etc/passwd",
            "-drive if=pflash,file=/etc/passwd",
            "-kernel /etc/passwd",
            "-kernel ../../../etc/passwd",
            "-initrd leak",
            "-device vfio-pci,host=01:00.0",
            "-device usb-mtp,rootdir=/",
            "-device virtio-net-pci,romfile=/etc/passwd",
            "-device loader,file=/etc/passwd",
            "-object memory-backend-file,mem-path=/x,id=a",
            "-object rng-random,filename=/etc/passwd",
            "-smbios file=/etc/passwd",
            "-smbios type=11,path=/etc/passwd",
            "-global virtio-rng-pci.romfile=/etc/passwd",
            "-global driver=virtio-rng-pci,property=romfile,value=/etc/passwd",
            "-machine q35,dumpdtb=/x",
            "-device usb-tablet,driver=usb-mtp,rootdir=/",
            "-device driver=usb-mtp,rootdir=/",
            "-device virtio-gpu-rutabaga,wayland-socket-path=/x",
            "-device virtio-serial-pci",
            "-machine q35,boot.splash=/etc/passwd",
            "-boot splash=/etc/passwd",
            "-sandbox off",
            "-incoming exec:id",
            "-D /tmp/x",
            "-readconfig /x",
            "-append",
            "disk.img",
        ] {
            assert!(check(&words(line), dir.path()).is_err(), "{line} passed");
        }
    }

    #[test]
    fn a_disk_may_be_attached_but_not_chosen() {
        assert!(check_drive("id=root,if=none").is_ok());
        assert!(check_drive("if=virtio,file=/etc/passwd").is_err());
    }

    proptest! {
        #[test]
        fn no_words_make_it_panic(words in proptest::collection::vec(".{0,20}", 0..8)) {
            let _ = check(&words, Path::new("/nonexistent"));
        }
    }
}
