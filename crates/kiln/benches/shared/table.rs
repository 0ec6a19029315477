//! Tables for people, JSON for programs, and small sums.

#![expect(clippy::print_stdout, reason = "tables are what benchmarks are for")]

use std::process::Command;

use serde_json::{Value, json};

/// A table, whose first column is text and whose others are figures.
pub struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            head: head.iter().map(|&word| word.to_owned()).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// A sentence below it.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn print(&self) {
        let rows = || std::iter::once(&self.head).chain(&self.rows);
        let mut widths = vec![0; rows().map(Vec::len).max().unwrap_or(0)];
        for row in rows() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        println!("\n{}\n", self.title);
        for row in rows() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let cell = match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("   {cell:>width$}"),
                };
                line.push_str(&cell);
            }
            println!("  {}", line.trim_end());
        }
        for note in &self.notes {
            println!("  {note}");
        }
    }

    /// Its rows, each by the words of the head.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.head.iter().zip(row);
            cells
                .map(|(word, cell)| (word.clone(), Value::from(cell.as_str())))
                .collect::<serde_json::Map<_, _>>()
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>(), "notes": self.notes })
    }
}

/// What is in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (
        sorted.get(sorted.len().saturating_sub(1) / 2),
        sorted.get(sorted.len() / 2),
    ) else {
        return f64::NAN;
    };
    f64::midpoint(*low, *high)
}

/// The smallest value that so many of a hundred do not exceed; `NAN` of none.
pub fn percentile(values: &[f64], of_hundred: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The smallest and the largest.
pub fn ends(values: &[f64]) -> (f64, f64) {
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(0.0, f64::max);
    (smallest, largest)
}

/// The host's load now, which says how much the figures are worth.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// What the figures were measured on, and what was measured. `engines` are programs that
/// say their version.
pub fn machine(engines: &[&str]) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let versions = engines.iter().map(|&engine| {
        let name = engine.rsplit('/').next().unwrap_or(engine);
        (name.to_owned(), Value::from(said(engine, &["--version"])))
    });
    json!({
        "processor": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": load(),
        "commit": said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        "engines": versions.collect::<serde_json::Map<_, _>>(),
    })
}

/// What a program says on its first line; nothing when it is not there.
fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Writes figures for programs into the directory that `BENCH_DIR` names, or
/// the working directory.
pub fn write_json(name: &str, value: &Value) -> anyhow::Result<()> {
    let dir = std::env::var_os("BENCH_DIR").unwrap_or_else(|| ".".into());
    let path = std::path::Path::new(&dir).join(name);
    std::fs::write(&path, format!("{value:#}\n"))?;
    Ok(())
}
