//! What guests that do nothing take of the host's memory.

use std::{collections::BTreeMap, fs};

/// Memory of all processes of some guests, in bytes.
#[derive(Default)]
pub struct Memory {
    /// What is nobody else's, and each one's share of programs and libraries,
    /// by the program's name. The template is not in it.
    pub own: BTreeMap<String, u64>,
    /// How many of those processes there are.
    pub processes: BTreeMap<String, u64>,
}

impl Memory {
    /// Of all processes below this one.
    pub fn of_guests() -> Self {
        let mut memory = Self::default();
        for pid in below(std::process::id()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let Ok(rollup) = rollup else {
                continue;
            };
            // The helper inside has executed itself by a descriptor.
            let name = name.trim().replace("exe", "kiln");
            // The template is a memfd: pages of it that a guest has not written.
            let own = field(&rollup, "Pss_Anon:") + field(&rollup, "Pss_File:");
            *memory.own.entry(name.clone()).or_default() += own;
            *memory.processes.entry(name).or_default() += 1;
        }
        memory
    }

    /// Of all of them together.
    pub fn total(&self) -> u64 {
        self.own.values().sum()
    }
}

/// In bytes.
fn field(rollup: &str, name: &str) -> u64 {
    let row = rollup.lines().find_map(|row| row.strip_prefix(name));
    let kib = row.and_then(|row| row.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The processes that this one started, and those that they did.
pub fn below(root: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children
                .split_whitespace()
                .filter_map(|word| word.parse::<u32>().ok());
            todo.extend(children);
        }
        all.push(pid);
    }
    all.retain(|&pid| pid != root);
    all
}
