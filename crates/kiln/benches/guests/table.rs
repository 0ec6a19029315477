//! Tables for people, and small sums.

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

/// Writes figures for programs into the directory that `BENCH_DIR` names, or
/// the working directory.
pub fn write_json(name: &str, value: &serde_json::Value) -> anyhow::Result<()> {
    let dir = std::env::var_os("BENCH_DIR").unwrap_or_else(|| ".".into());
    let path = std::path::Path::new(&dir).join(name);
    std::fs::write(&path, format!("{value:#}\n"))?;
    Ok(())
}
