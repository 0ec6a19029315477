//! What runs beside a guest is in a box: an image's `functions` is run where
//! QEMU is, with the same root, network and rights.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use super::support::{Images, manifest};
use crate::harness::Kiln;

/// Says what it reaches of the host, and never boots.
const PRY: &str = r#"
boot() {
	for path in /etc/shadow /etc/hostname /root/.bashrc /root/.profile /home/*/.profile /var /run /sys /mnt /boot /dev/mem /dev/tty \
		/dev/net/tun /dev/fuse /proc/sys /proc/kcore /proc/mounts "$HOME" "$KILN_PRY"; do
		if [ -n "$path" ] && [ -e "$path" ]; then echo "SEES $path" >&2; fi
	done
	for dir in / /usr /usr/bin /etc /dev /proc "$base" "$base/sub" "$wd" "$wd/$arch"; do
		if (true >"$dir/kiln-was-here") 2>/dev/null; then echo "WRITES $dir" >&2; fi
	done
	if (true >>"$wd/functions") 2>/dev/null; then echo "WRITES functions" >&2; fi
	if (true >>"$wd/$arch/root.img.qcow2") 2>/dev/null; then echo "WRITES the disk" >&2; fi
	for fd in 3 4 5 6 7 8 9; do
		# 3 is functions' own copy of its standard output.
		if [ "$fd" != 3 ] && [ -e "/proc/self/fd/$fd" ]; then echo "HOLDS $fd" >&2; fi
	done
	echo "PROCESSES $(echo /proc/[0-9]* | wc -w)" >&2
	echo "CAPABLE $(sed -n 's/^CapEff:[^0-9a-f]*//p' /proc/self/status)" >&2
	if unshare --user true 2>/dev/null; then echo "NESTS" >&2; fi
	if mount -t tmpfs tmpfs /tmp 2>/dev/null; then echo "MOUNTS" >&2; fi
	echo "INTERFACES $(sed -n '3,$s/:.*//p' /proc/self/net/dev | tr -d ' \n')" >&2
	echo PRIED >&2
	exit 1
}
"#;

/// A file system of its own below the images, where the test may mount one.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&path)
            .status();
        mount
            .is_ok_and(|status| status.success())
            .then_some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn pried() -> String {
    let images = Images::new();
    images.with_functions("pry", PRY);
    let _mounted = Mounted::at(images.path().join("sub"));
    let kiln = Kiln::with_images(images.path());
    let secret = kiln.file("secret", "s3cr3t");
    let run = kiln
        .run(&manifest("pry"))
        .args(["--no-network"])
        .env("KILN_PRY", &secret)
        .takes_turns(false);
    let ended = run.limit(Duration::from_secs(15)).expect_status(3);
    ended.expect_stderr("PRIED");
    ended.stderr()
}

#[test]
fn an_images_functions_sees_and_writes_nothing_of_the_host() {
    let said = pried();
    for line in said.lines() {
        for bad in ["SEES", "WRITES", "HOLDS", "MOUNTS", "NESTS"] {
            assert!(!line.contains(bad), "{said}");
        }
    }
    assert!(said.contains("CAPABLE 0000000000000000"), "{said}");
    // Itself, its namespace's init, and what counts them.
    let processes = said
        .lines()
        .find_map(|line| line.strip_prefix("PROCESSES "));
    let processes: usize = processes
        .expect("a number")
        .trim()
        .parse()
        .expect("a number");
    assert!(processes <= 5, "{said}");
    assert!(said.contains("INTERFACES lo\n"), "{said}");
}
