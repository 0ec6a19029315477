//! `kiln image list`.

use std::{path::Path, time::SystemTime};

use kiln_vm::{
    image::{Image, Listed, Store},
    machine::Login,
};
use serde_json::json;

use crate::{
    cli::ImagesArgs,
    exit::{Exit, Failure},
    host::paths,
    ui,
};

/// How much of a digest tells images apart.
const SHOWN_DIGEST: usize = 12;

/// Runs the command.
pub fn run(args: &ImagesArgs, json: bool) -> Result<Exit, Failure> {
    let base = paths::images(args)?;
    let images = Store::new(base.clone()).list();
    if images.is_empty() {
        ui::note(&format!(
            "no images in {}; `kiln image build debian/bookworm` makes one",
            base.display()
        ));
    }
    if !json && !images.is_empty() {
        ui::line(&format!(
            "{:<24} {:<10} {:>8} {:>10}  DIGEST",
            "IMAGE", "ARCH", "AGE", "SIZE"
        ));
    }
    for image in images {
        let digest = match &image.link {
            Some(_) => None,
            None => Some(digest(&base, &image.name)),
        };
        for (arch, size, written) in &image.disks {
            let age = SystemTime::now()
                .duration_since(*written)
                .unwrap_or_default()
                .as_secs();
            if json {
                ui::line(&as_json(&image, arch, *size, age, digest.as_ref()));
            } else {
                ui::line(&as_row(&image, arch, *size, age, digest.as_ref()));
            }
        }
    }
    Ok(Exit::Success)
}

/// One that can't be read, or is being written, keeps no other from its row.
type Digest = Result<String, String>;

fn digest(base: &Path, name: &str) -> Digest {
    let image = Image {
        name: name.to_owned(),
        arch: String::new(),
        base: base.to_owned(),
        dir: base.join(name),
        login: Login::default(),
    };
    image.digest().map_err(|error| error.to_string())
}

fn as_json(image: &Listed, arch: &str, size: u64, age: u64, digest: Option<&Digest>) -> String {
    let link = image.link.as_ref().map(|link| link.display().to_string());
    json!({
        "name": image.name,
        "arch": arch,
        "age_seconds": age,
        "size": size,
        "digest": digest.and_then(|digest| digest.as_ref().ok()),
        "error": digest.and_then(|digest| digest.as_ref().err()),
        "link": link,
    })
    .to_string()
}

fn as_row(image: &Listed, arch: &str, size: u64, age: u64, digest: Option<&Digest>) -> String {
    let digest = match (&image.link, digest) {
        (Some(link), _) => format!("→ {}", link.display()),
        (None, Some(Ok(digest))) => digest.get(..SHOWN_DIGEST).unwrap_or("").to_owned(),
        (None, Some(Err(error))) => format!("unreadable: {error}"),
        (None, None) => String::new(),
    };
    let size = format!("{} MiB", size >> 20);
    format!(
        "{:<24} {arch:<10} {:>8} {size:>10}  {digest}",
        image.name,
        people_age(age)
    )
}

fn people_age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cant_be_read_has_a_row_that_says_so() {
        let image = Listed {
            name: "debian/sid".into(),
            link: None,
            disks: Vec::new(),
        };
        let unreadable = Err("amd64: permission denied".to_owned());
        let row = as_row(&image, "amd64", 0, 0, Some(&unreadable));
        assert!(
            row.ends_with("unreadable: amd64: permission denied"),
            "{row}"
        );
        let json = as_json(&image, "amd64", 0, 0, Some(&unreadable));
        assert!(json.contains(r#""digest":null"#), "{json}");
        assert!(
            json.contains(r#""error":"amd64: permission denied""#),
            "{json}"
        );
    }
}
