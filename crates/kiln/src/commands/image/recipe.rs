//! The recipes that come with kiln: `images/` of the repository, inside the
//! binary. Building an image writes them into the images directory, where they
//! are ordinary files that their owner may change.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use crate::ui;

/// A file of a recipe.
struct RecipeFile {
    path: &'static str,
    text: &'static str,
}

macro_rules! recipe {
    ($($path:literal),* $(,)?) => {
        &[$(RecipeFile {
            path: $path,
            text: include_str!(concat!("../../../../../images/", $path)),
        }),*]
    };
}

const FILES: &[RecipeFile] = recipe![
    "debian/bookworm/functions",
    "debian/bookworm/genimg",
    "debian/build.yml",
    "debian/forky/functions",
    "debian/forky/genimg",
    "debian/functions",
    "debian/genimg",
    "debian/guest-agent",
    "debian/guest-disk",
    "debian/guest-initrd",
    "debian/guest-setup",
    "debian/packages",
    "debian/sid/functions",
    "debian/sid/genimg",
    "debian/trixie/functions",
    "debian/trixie/genimg",
];

/// Names of releases that move, as links to what they mean today.
const LINKS: &[(&str, &str)] = &[
    ("debian/stable", "trixie"),
    ("debian/testing", "forky"),
    ("debian/unstable", "sid"),
];

/// What kiln wrote last time, to tell it from what the owner wrote since.
const WRITTEN: &str = ".recipe";

/// The image that a name means: a link's target, or itself.
pub fn resolve(name: &str) -> String {
    for (link, target) in LINKS {
        if *link == name
            && let Some((distro, _)) = name.split_once('/')
        {
            return format!("{distro}/{target}");
        }
    }
    name.to_owned()
}

/// The names that can be built.
pub fn names() -> Vec<String> {
    let built = FILES
        .iter()
        .filter_map(|file| file.path.strip_suffix("/genimg"));
    let releases = built.filter(|name| name.contains('/')).map(str::to_owned);
    let links = LINKS.iter().map(|(link, _)| (*link).to_owned());
    releases.chain(links).collect()
}

/// Writes the recipe of a distribution. A file that its owner has changed
/// stays.
pub fn write(images: &Path, distro: &str) -> io::Result<()> {
    let prefix = format!("{distro}/");
    for file in FILES.iter().filter(|file| file.path.starts_with(&prefix)) {
        write_file(images, file)?;
    }
    Ok(())
}

fn write_file(images: &Path, file: &RecipeFile) -> io::Result<()> {
    let path = images.join(file.path);
    let ours = images.join(WRITTEN).join(file.path);
    match fs::read_to_string(&path) {
        Ok(present) if present == file.text => return Ok(()),
        Ok(present) if fs::read_to_string(&ours).is_ok_and(|written| written == present) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => {
            ui::note(&format!("keeping your own {}", path.display()));
            return Ok(());
        }
    }
    let mode = if file.text.starts_with("#!") {
        0o755
    } else {
        0o644
    };
    for path in [&path, &ours] {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        // Whole or not at all: a guest may be starting from it.
        let new = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, file.text)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        fs::rename(&new, path)?;
    }
    Ok(())
}

/// Makes the links that mean this image; what is no link stays.
pub fn link(images: &Path, name: &str) -> io::Result<()> {
    for (link, target) in LINKS.iter().filter(|(link, _)| resolve(link) == name) {
        let path = images.join(link);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => fs::remove_file(&path)?,
            Ok(_) => continue,
            Err(_) => {}
        }
        symlink(target, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_means_a_recipe() {
        for (link, _) in LINKS {
            let genimg = format!("{}/genimg", resolve(link));
            assert!(FILES.iter().any(|file| file.path == genimg), "{link}");
        }
    }

    #[test]
    fn every_file_of_the_recipes_is_in_the_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images");
        let mut found = Vec::new();
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    found.push(
                        path.strip_prefix(&root)
                            .unwrap()
                            .to_str()
                            .unwrap()
                            .to_owned(),
                    );
                }
            }
        }
        found.sort();
        let ours: Vec<&str> = FILES.iter().map(|file| file.path).collect();
        assert_eq!(found, ours);
    }

    #[test]
    fn what_the_owner_changed_stays_and_what_kiln_wrote_is_renewed() {
        let images = tempfile::tempdir().unwrap();
        write(images.path(), "debian").unwrap();
        let functions = images.path().join("debian/functions");
        let genimg = images.path().join("debian/genimg");
        fs::write(&functions, "mine").unwrap();
        // As an older kiln would have left it.
        fs::write(&genimg, "old").unwrap();
        fs::write(images.path().join(WRITTEN).join("debian/genimg"), "old").unwrap();
        write(images.path(), "debian").unwrap();
        assert_eq!(fs::read_to_string(functions).unwrap(), "mine");
        assert_ne!(fs::read_to_string(&genimg).unwrap(), "old");
        assert_eq!(
            fs::metadata(genimg).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn a_link_leads_to_its_release() {
        let images = tempfile::tempdir().unwrap();
        write(images.path(), "debian").unwrap();
        link(images.path(), "debian/trixie").unwrap();
        assert!(images.path().join("debian/stable/genimg").is_file());
    }
}
