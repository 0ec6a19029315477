//! The list `tasks`: one-entry mappings of a name to a script.

use std::collections::HashMap;

use super::diagnostic::{Position, Problem, Report, quoted};
use super::read;
use super::values::TaskName;
use super::yaml::{Node, Value};

/// One named script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its name, unique in the manifest.
    pub name: TaskName,
    /// The script without the blanks around it. Its line ends are `\n`, it has no NUL
    /// character, and it may be empty.
    pub script: String,
}

const EXAMPLE: &str = "build: make";

/// Reads the list `tasks`.
pub(super) fn read_tasks(node: &Node, report: &mut Report) -> Vec<Task> {
    if let Value::Mapping(_) = &node.value {
        let message = "the tasks are a mapping, which has no order";
        let remedy = "put `- ` before the name of each task";
        report.error(node.at, "tasks", Problem::new(message, remedy));
        return Vec::new();
    }
    let items = read::list(node, "tasks", report, EXAMPLE).unwrap_or_default();
    let mut names: HashMap<TaskName, Position> = HashMap::new();
    let mut tasks = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let field = format!("tasks[{index}]");
        let Some((task, at)) = read_task(item, &field, report) else {
            continue;
        };
        if let Some(first) = names.insert(task.name.clone(), at) {
            let message = format!(
                "there already is a task {} on line {}",
                quoted(task.name.as_str()),
                first.line
            );
            report.error(
                at,
                &field,
                Problem::new(message, "give each task a name of its own"),
            );
        }
        tasks.push(task);
    }
    tasks
}

fn read_task(item: &Node, field: &str, report: &mut Report) -> Option<(Task, Position)> {
    if let Value::Scalar { .. } = &item.value {
        let message = "this task has no name and script";
        let remedy = format!("write it as `- {EXAMPLE}`");
        report.error(item.at, field, Problem::new(message, remedy));
        return None;
    }
    let entries = read::mapping(item, field, report, EXAMPLE)?;
    if entries.len() > 1 {
        let message = format!(
            "there are {} entries in one task, {} and {} among them",
            entries.len(),
            quoted(entries[0].key),
            quoted(entries[1].key)
        );
        let remedy = "put `- ` before each name, and indent the script deeper than its name";
        report.error(entries[1].key_at, field, Problem::new(message, remedy));
        return None;
    }
    let Some(entry) = entries.first() else {
        let remedy = format!("write it as `- {EXAMPLE}`, or remove it");
        report.error(item.at, field, Problem::new("this task is empty", remedy));
        return None;
    };
    let name = match TaskName::parse(entry.key) {
        Ok(name) => Some(name),
        Err(problem) => {
            report.error(entry.key_at, field, problem);
            None
        }
    };
    let script = read_script(entry.value, field, report);
    Some((
        Task {
            name: name?,
            script: script?,
        },
        entry.key_at,
    ))
}

fn read_script(node: &Node, field: &str, report: &mut Report) -> Option<String> {
    if !matches!(node.value, Value::Scalar { .. }) || node.is_null() {
        let message = format!("the script is {}", read::kind(node));
        let remedy = "write `|` after the name, and the commands below it, indented deeper";
        report.error(node.at, field, Problem::new(message, remedy));
        return None;
    }
    let text = read::text(node, field, report)?;
    if text.contains('\0') {
        let problem = Problem::new("no script can hold a NUL character", "remove the `\\0`");
        report.error(node.at, field, problem);
        return None;
    }
    // An escaped line end in double quotes is the only one that can still be a foreign one.
    let script = text.replace("\r\n", "\n").trim().to_owned();
    if script.is_empty() {
        let problem = Problem::new(
            "the script is empty",
            "write its commands, or remove the task",
        );
        report.warn(node.at, field, problem);
    }
    Some(script)
}
