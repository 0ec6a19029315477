//! Which QEMUs kiln is for.

use super::command;

/// Older ones have no words that kiln uses, nor do they read images that are
/// packed with zstd.
pub const OLDEST: (u32, u32) = (5, 2);
/// What all tests are run with. Nothing is known against newer ones.
const TESTED: (u32, u32) = (7, 2);

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)` is 7.2.
#[must_use]
pub fn parse(said: &str) -> Option<(u32, u32)> {
    let number = said.split_once("version ")?.1;
    let mut parts = number.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What the version of a QEMU that would not start has to do with that, as the
/// end of a sentence.
pub(super) async fn remark(program: &str) -> String {
    let said = command::version(program).await;
    said.as_deref()
        .and_then(parse)
        .map_or_else(String::new, judge)
}

fn judge(version: (u32, u32)) -> String {
    let (major, minor) = version;
    if version < OLDEST {
        let (oldest, its_minor) = OLDEST;
        format!("; its version {major}.{minor} is too old, kiln needs {oldest}.{its_minor}")
    } else if version > TESTED {
        let (tested, its_minor) = TESTED;
        format!(
            "; its version {major}.{minor} is newer than {tested}.{its_minor}, which kiln is tested with"
        )
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        assert_eq!(
            parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"),
            Some((7, 2))
        );
        assert_eq!(parse("QEMU emulator version 10.0-rc1"), Some((10, 0)));
        assert_eq!(parse("QEMU emulator version x"), None);
        assert_eq!(parse("sh: not found"), None);
    }
}
