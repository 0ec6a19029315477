//! The images that are there, and how old.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use kiln_vm::{
    image::{Listed, Store, qcow2},
    qemu,
};

use super::{finding::Finding, programs};

/// Past this a new one saves each job its security updates.
const OLD: Duration = Duration::from_hours(14 * 24);
/// What most want first.
const FIRST: &str = "debian/bookworm";

/// The command that builds images, without its last word.
pub fn build_command(asked: Option<&Path>) -> String {
    match asked {
        Some(dir) => format!("kiln image build --images {}", dir.display()),
        None => "kiln image build".into(),
    }
}

/// What is in the directory.
pub fn look(dir: &Path, build: &str) -> Vec<Finding> {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let remedy = "name another directory with --images or KILN_IMAGES";
            return vec![Finding::broken(
                format!("images: {}: {error}", dir.display()),
                remedy,
            )];
        }
        _ => {}
    }
    let images = Store::new(dir.to_owned()).list();
    if images.is_empty() {
        return vec![Finding::broken(
            format!("images: none in {}", dir.display()),
            format!("{build} {FIRST}"),
        )];
    }
    let now = SystemTime::now();
    images
        .iter()
        .flat_map(|image| rows(image, now, build, |arch| usable(dir, &image.name, arch)))
        .collect()
}

/// Whether a guest can start from this disk; else why not, and the remedy when
/// a new image is none.
fn usable(dir: &Path, name: &str, arch: &str) -> Result<(), Unusable> {
    let disk = dir.join(name).join(arch).join("root.img.qcow2");
    qcow2::inspect(&disk).map_err(|refused| Unusable::Disk(format!("its disk {refused}")))?;
    match qemu::binary(arch) {
        Some(binary) if programs::of_the_system(binary).is_none() => Err(Unusable::Qemu(binary)),
        _ => Ok(()),
    }
}

/// Why no guest starts from a disk.
enum Unusable {
    Disk(String),
    Qemu(&'static str),
}

/// A link is as old as what it leads to, which has its own row.
fn rows(
    image: &Listed,
    now: SystemTime,
    build: &str,
    usable: impl Fn(&str) -> Result<(), Unusable>,
) -> Vec<Finding> {
    if let Some(target) = &image.link {
        return vec![Finding::ok(format!(
            "image {}: is {}",
            image.name,
            target.display()
        ))];
    }
    let row = |(arch, size, written): &(String, u64, SystemTime)| {
        // A clock that was set back makes no image old.
        let age = now.duration_since(*written).unwrap_or_default();
        let what = format!(
            "image {} ({arch}): {}, {} MiB",
            image.name,
            people_age(age),
            size >> 20
        );
        let again = format!("{build} {}", image.name);
        match usable(arch) {
            Err(Unusable::Disk(why)) => Finding::broken(format!("{what}; {why}"), again),
            Err(Unusable::Qemu(binary)) => Finding::warning(
                format!("{what}; {binary} is not installed"),
                "install it to run such guests",
            ),
            Ok(()) if age > OLD => Finding::warning(
                format!("{what}; jobs install more and more updates in it"),
                again,
            ),
            Ok(()) => Finding::ok(what),
        }
    };
    image.disks.iter().map(row).collect()
}

fn people_age(age: Duration) -> String {
    match age.as_secs() / 86_400 {
        0 => "less than a day old".into(),
        1 => "a day old".into(),
        days => format!("{days} days old"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(link: Option<&str>, days: u64) -> String {
        judged(link, days, || Ok(()))
    }

    fn judged(link: Option<&str>, days: u64, usable: fn() -> Result<(), Unusable>) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 100);
        let image = Listed {
            name: "debian/sid".into(),
            link: link.map(Into::into),
            disks: vec![(
                "amd64".into(),
                210 << 20,
                now - Duration::from_hours(24 * days),
            )],
        };
        let rows = rows(&image, now, "kiln image build", |_| usable());
        rows.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn an_old_image_is_a_hint() {
        assert_eq!(
            lines(None, 0),
            "OK  image debian/sid (amd64): less than a day old, 210 MiB"
        );
        assert!(lines(None, 14).starts_with("OK"));
        let old = lines(None, 15);
        assert!(
            old.starts_with("--  image debian/sid (amd64): 15 days old"),
            "{old}"
        );
        assert!(old.ends_with("— kiln image build debian/sid"), "{old}");
        assert_eq!(
            lines(Some("bookworm"), 99),
            "OK  image debian/sid: is bookworm"
        );
    }

    #[test]
    fn an_image_that_can_not_start_is_no_image() {
        let line = judged(None, 1, || {
            Err(Unusable::Disk("its disk is no qcow2".into()))
        });
        assert!(
            line.starts_with("!!") && line.ends_with("is no qcow2 — kiln image build debian/sid"),
            "{line}"
        );
        let line = judged(None, 1, || Err(Unusable::Qemu("qemu-system-arm")));
        assert!(line.contains("qemu-system-arm is not installed"), "{line}");
    }

    #[test]
    fn an_empty_directory_is_in_the_way_and_says_how_to_fill_it() {
        let found = look(
            Path::new("/nonexistent"),
            &build_command(Some(Path::new("/x"))),
        );
        assert_eq!(
            found[0].to_string(),
            "!!  images: none in /nonexistent — kiln image build --images /x debian/bookworm"
        );
    }
}
