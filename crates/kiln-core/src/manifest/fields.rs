//! From the YAML tree to a [`Manifest`]: the keys, and the rules that concern several values.

use std::collections::HashMap;
use std::rc::Rc;

use super::diagnostic::{MAX_DIAGNOSTICS, Position, Problem, Report, quoted};
use super::read::{self, Entry};
use super::yaml::{self, Node};
use super::{
    Arch, ImageName, MAX_ARTIFACTS, MAX_SUBMIT_CHARS, Manifest, Repository, SecretRef, Source,
    environment, tasks, text, triggers, values,
};

/// Every key of a manifest, in the order of the normalised form.
pub(super) const KEYS: [&str; 12] = [
    "image",
    "arch",
    "packages",
    "repositories",
    "sources",
    "environment",
    "secrets",
    "tasks",
    "triggers",
    "shell",
    "artifacts",
    "oauth",
];

/// For the service that submits the manifest; it may hold anything.
const SUBMITTER: &str = "submitter";

const START: Position = Position { line: 1, column: 1 };

/// Reads a manifest. What is returned is only good when no error was reported.
pub(super) fn read_document(bytes: &[u8], report: &mut Report) -> Option<Manifest> {
    let root = match text::prepare(bytes).and_then(|text| read_tree(&text, report)) {
        Ok(root) => root,
        Err((at, problem)) => {
            report.error(at, "", problem);
            return None;
        }
    };
    let Some(root) = root.filter(|node| !node.is_null()) else {
        let remedy = "write at least an `image` and a list of `tasks`";
        report.error(START, "", Problem::new("the manifest is empty", remedy));
        return None;
    };
    let entries = read::mapping(&root, "", report, "image: debian/bookworm")?;
    let unknown = entries
        .iter()
        .filter(|e| !KEYS.contains(&e.key) && e.key != SUBMITTER);
    // More would not be reported, and looking for suggestions takes its time.
    for entry in unknown.take(MAX_DIAGNOSTICS) {
        read::unknown_key(entry, "", &KEYS, report);
    }
    read_manifest(
        &Fields {
            root: &root,
            entries,
        },
        report,
    )
}

/// Reads the tree; with spaces for the tabs of the indentation when it cannot be read as it is.
fn read_tree(text: &str, report: &mut Report) -> Result<Option<Rc<Node>>, text::Located> {
    if text.chars().count() >= MAX_SUBMIT_CHARS {
        let message = format!("the manifest has {MAX_SUBMIT_CHARS} characters or more");
        let remedy = "move long scripts into the source repository: a farm refuses this";
        report.warn(START, "", Problem::new(message, remedy));
    }
    let first = match yaml::read(text) {
        Ok(root) => return Ok(root),
        Err(error) => error,
    };
    let Some(spaces) = text::without_indentation_tabs(text) else {
        return Err(first);
    };
    let root = yaml::read(&spaces).map_err(|_| first)?;
    let line = text.lines().zip(spaces.lines()).position(|(a, b)| a != b);
    let at = Position {
        line: line.unwrap_or(0) + 1,
        column: 1,
    };
    let problem = Problem::new(
        "lines are indented with tabs",
        "indent with spaces, as YAML says",
    );
    report.warn(at, "", problem);
    Ok(root)
}

/// The keys of the root.
struct Fields<'a> {
    root: &'a Node,
    entries: Vec<Entry<'a>>,
}

impl<'a> Fields<'a> {
    /// The value of a key that is present and not null.
    fn get(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|e| e.key == key)?;
        Some(entry.value).filter(|node| !node.is_null())
    }
}

fn read_manifest(fields: &Fields<'_>, report: &mut Report) -> Option<Manifest> {
    let image = read_image(fields, report);
    let arch = fields
        .get("arch")
        .and_then(|n| read::parsed(n, "arch", report, Arch::parse));
    let packages = fields.get("packages").and_then(|node| {
        read::text_list(node, "packages", report, "curl", |text| {
            values::line(text, "package")
        })
    });
    let repositories = fields
        .get("repositories")
        .map(|n| read_repositories(n, report));
    let sources = fields.get("sources").and_then(|n| read_sources(n, report));
    let environment = fields
        .get("environment")
        .map(|n| environment::read_environment(n, report));
    let secrets = fields.get("secrets").and_then(|node| {
        read::text_list(
            node,
            "secrets",
            report,
            "the secret's UUID",
            SecretRef::parse,
        )
    });
    let tasks = fields.get("tasks").map(|n| tasks::read_tasks(n, report));
    let triggers = fields
        .get("triggers")
        .map(|n| triggers::read_triggers(n, report));
    let shell = fields
        .get("shell")
        .and_then(|n| read::flag(n, "shell", report));
    let artifacts = fields
        .get("artifacts")
        .and_then(|n| read_artifacts(n, report));
    let oauth = fields.get("oauth").and_then(|node| {
        read::parsed(node, "oauth", report, |text| {
            super::diagnostic::refuse_control(text, "grant").map(|()| text.to_owned())
        })
    });
    let nothing_to_do = tasks.as_ref().is_none_or(Vec::is_empty) && shell != Some(true);
    if nothing_to_do && !report.failed() {
        let at = fields.get("tasks").unwrap_or(fields.root).at;
        let remedy = "add a list of tasks, or `shell: true` to use the machine by SSH";
        report.error(at, "tasks", Problem::new("there is nothing to run", remedy));
    }
    Some(Manifest {
        image: image?,
        arch,
        packages,
        repositories,
        sources,
        environment,
        secrets,
        tasks,
        triggers,
        shell,
        artifacts,
        oauth,
    })
}

fn read_image(fields: &Fields<'_>, report: &mut Report) -> Option<ImageName> {
    let Some(node) = fields.get("image") else {
        let remedy = "add a line such as `image: debian/bookworm`";
        let problem = Problem::new("the manifest names no image", remedy);
        report.error(fields.root.at, "image", problem);
        return None;
    };
    read::parsed(node, "image", report, ImageName::parse)
}

fn read_repositories(node: &Node, report: &mut Report) -> Vec<Repository> {
    let example = "name: https://example.org/packages";
    let entries = read::mapping(node, "repositories", report, example).unwrap_or_default();
    let repositories = entries.iter().filter_map(|entry| {
        let name = match values::line(entry.key, "repository name") {
            Ok(name) => name,
            Err(problem) => {
                report.error(entry.key_at, "repositories", problem);
                return None;
            }
        };
        let field = format!("repositories.{name}");
        let source = read::parsed(entry.value, &field, report, |text| {
            values::line(text, "repository source")
        })?;
        Some(Repository { name, source })
    });
    repositories.collect()
}

fn read_sources(node: &Node, report: &mut Report) -> Option<Vec<Source>> {
    let items = read::list(node, "sources", report, "https://example.org/project")?;
    let mut directories: HashMap<String, Position> = HashMap::new();
    let mut sources = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let field = format!("sources[{index}]");
        let Some(source) = read::parsed(item, &field, report, Source::parse) else {
            continue;
        };
        if source.is_local_path() {
            let message = format!("{} is a path inside the guest", quoted(source.clone_url()));
            let remedy = "begin it with `https://` if it is the address of a repository";
            report.warn(item.at, &field, Problem::new(message, remedy));
        }
        let directory = source.directory().to_owned();
        if let Some(first) = directories.get(&directory) {
            let message = format!(
                "the directory {} is already taken by the source on line {}",
                quoted(&directory),
                first.line
            );
            let remedy = "give one of them another directory, as in `name::https://…`";
            report.warn(item.at, &field, Problem::new(message, remedy));
        } else {
            directories.insert(directory, item.at);
        }
        sources.push(source);
    }
    Some(sources)
}

fn read_artifacts(node: &Node, report: &mut Report) -> Option<Vec<String>> {
    let items = read::list(node, "artifacts", report, "project/result.tar.gz")?;
    if items.len() > MAX_ARTIFACTS {
        let message = format!(
            "there are {} artifacts, and {MAX_ARTIFACTS} are kept",
            items.len()
        );
        let problem = Problem::new(message, "put several files into one archive");
        report.error(node.at, "artifacts", problem);
        return None;
    }
    let mut paths: Vec<String> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let field = format!("artifacts[{index}]");
        let Some(path) = read::parsed(item, &field, report, values::artifact) else {
            continue;
        };
        if paths.contains(&path) {
            let message = format!("{} is listed twice", quoted(&path));
            report.error(
                item.at,
                &field,
                Problem::new(message, "remove one of the two"),
            );
        } else if paths
            .iter()
            .any(|other| base_name(other) == base_name(&path))
        {
            let message = format!(
                "another artifact is also called {}",
                quoted(base_name(&path))
            );
            let remedy = "rename one of them: builds.sr.ht refuses equal names";
            report.warn(item.at, &field, Problem::new(message, remedy));
        }
        paths.push(path);
    }
    Some(paths)
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
