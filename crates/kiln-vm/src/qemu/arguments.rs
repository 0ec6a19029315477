//! Checks what an image's `boot` asks of QEMU.
//!
//! The words come from a script that nobody here wrote. QEMU has options that
//! read and write files of the host, run programs and open sockets, so only
//! what describes the guest's own hardware passes, and files only from the
//! image's directory (or the firmware that QEMU's packages install).

use std::path::{Component, Path, PathBuf};

/// Options that describe hardware or say nothing of the host, with a value.
const WITH_VALUE: &[&str] = &[
    "-append", "-boot", "-cpu", "-global", "-m", "-machine", "-M", "-name", "-rtc", "-smbios",
    "-vga",
];
/// The same without a value.
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
    ("-serial", 1),
    ("-no-reboot", 0),
    ("-snapshot", 0),
    ("-smp", 1),
];
/// Options whose value is a file to read.
const FILES: &[&str] = &["-bios", "-dtb", "-initrd", "-kernel"];
/// Devices by the beginning of their names.
const DEVICES: &[&str] = &[
    "ahci",
    "e1000",
    "i6300esb",
    "ich9-",
    "ide-cd",
    "ide-hd",
    "isa-",
    "nec-usb-xhci",
    "nvme",
    "pcie-",
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
    "VGA",
    "virtio-balloon",
    "virtio-blk",
    "virtio-gpu",
    "virtio-keyboard",
    "virtio-net",
    "virtio-rng",
    "virtio-scsi",
    "virtio-vga",
];
/// Properties of a device that name something of the host.
const HOST_PROPERTIES: &[&str] = &[
    "chardev",
    "drive-file",
    "file",
    "filename",
    "hostbus",
    "hostaddr",
    "hostdevice",
    "loadvm",
    "path",
    "romfile",
    "bios",
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
        let value = if WITH_VALUE.contains(&option) {
            plain_value(option, value()?)?
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

/// `-machine` can name an accelerator and firmware, `-smbios` a file.
fn plain_value(option: &str, value: String) -> Result<String, String> {
    let forbidden = |part: &&str| {
        let name = part.split_once('=').map_or(*part, |(name, _)| name);
        let host = [
            "file", "dtb", "kernel", "initrd", "firmware", "shmem", "dumpdtb", "pflash0", "pflash1",
        ];
        (option == "-smbios" && matches!(name, "file" | "path"))
            || (option == "-boot" && name == "splash")
            || (option == "-global" && sets_host_property(part))
            || (matches!(option, "-M" | "-machine") && host.contains(&name))
    };
    if let Some(part) = value.split(',').find(forbidden) {
        return Err(format!(
            "`functions` gives QEMU's {option} `{part}`, which names a file of the host"
        ));
    }
    if matches!(option, "-M" | "-machine") {
        // The accelerator is kiln's to choose.
        let parts: Vec<&str> = value
            .split(',')
            .filter(|part| !part.starts_with("accel="))
            .collect();
        return Ok(parts.join(","));
    }
    Ok(value)
}

/// `DEVICE.PROPERTY=VALUE`, or `property=PROPERTY` among three parts: for
/// devices of kiln's own, too.
fn sets_host_property(part: &str) -> bool {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    let property = if name == "property" {
        value
    } else {
        name.rsplit('.').next().unwrap_or(name)
    };
    HOST_PROPERTIES.contains(&property)
}

fn device(value: String) -> Result<String, String> {
    let mut parts = value.split(',');
    let name = parts.next().unwrap_or_default();
    let name = name.strip_prefix("driver=").unwrap_or(name);
    if !DEVICES.iter().any(|known| name.starts_with(known)) {
        return Err(format!(
            "`functions` asks for the device `{name}`, which kiln does not give to images"
        ));
    }
    let host = parts.find(|part| match part.split_once('=') {
        Some((name, value)) => HOST_PROPERTIES.contains(&name) && !value.is_empty(),
        None => false,
    });
    match host {
        Some(part) => Err(format!(
            "`functions` gives the device `{name}` `{part}`, which names something of the host"
        )),
        None => Ok(value),
    }
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
