//! What all runs did and found, and whether that was enough to say that all is well.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::testing::checker::{Report, Rule};

use super::{
    kinds::{Fault, Kind, Shape},
    plan::Size,
};

/// How many of a hundred jobs may fail because of what their worker met. Many more, and there
/// is not enough left to be judged.
const EXCUSED: u64 = 10;

/// What a run was and found.
pub struct Ran {
    pub size: Size,
    pub shape: Shape,
    /// The faults that were made.
    pub made: Vec<Fault>,
    pub report: Report,
}

impl Ran {
    pub fn is_good(&self) -> bool {
        self.report.violations.is_empty()
    }
}

/// All runs.
#[derive(Default)]
pub struct Total {
    seeds: u32,
    jobs: usize,
    /// Faults that there should have been.
    asked: usize,
    faults: BTreeMap<Kind, usize>,
    /// Those which took a minute.
    long: usize,
    checked: BTreeMap<Rule, u64>,
    excused: u64,
    violations: usize,
    /// What a farm had that could not go wrong.
    missing: BTreeSet<&'static str>,
    /// Whether one had the time for all.
    is_long: bool,
}

impl Total {
    pub fn add(&mut self, ran: &Ran) {
        self.seeds += 1;
        self.jobs += ran.size.jobs;
        self.asked += ran.size.faults;
        self.violations += ran.report.violations.len();
        self.excused += ran.report.excused;
        self.is_long |= !ran.size.is_short();
        for fault in &ran.made {
            *self.faults.entry(fault.kind).or_default() += 1;
            self.long += usize::from(fault.length.as_secs() >= 60);
        }
        for (rule, count) in &ran.report.checked {
            *self.checked.entry(*rule).or_default() += count;
        }
        if !ran.shape.clocks {
            self.missing.insert("clocks");
        }
        if !ran.shape.disks {
            self.missing.insert("disks");
        }
    }

    fn made(&self) -> usize {
        self.faults.values().sum()
    }

    fn checked(&self, rule: Rule) -> u64 {
        self.checked.get(&rule).copied().unwrap_or_default()
    }

    pub fn print(&self) {
        let line = |what: &str, count: u64| println!("{what:<52}{count:>9}");
        line("\nseeds", self.seeds.into());
        line("jobs", self.jobs as u64);
        line("faults", self.made() as u64);
        line("  of them a minute long", self.long as u64);
        for (kind, count) in &self.faults {
            line(&format!("  {kind:?}"), *count as u64);
        }
        println!("checked");
        for rule in Rule::ALL {
            line(&format!("  {rule}"), self.checked(rule));
        }
        line("jobs that failed for their worker's fault", self.excused);
        line("violations", self.violations as u64);
        for what in self.lacks() {
            println!("NOT ENOUGH: {what}");
        }
    }

    /// Why this says less than it should.
    pub fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        for rule in Rule::ALL {
            // Few jobs may give no occasion for these.
            let rare = matches!(rule, Rule::Cancels | Rule::Fair) && !self.is_long;
            if self.checked(rule) == 0 && !rare {
                lacks.push(format!("`{rule}` was never put to the test"));
            }
        }
        if self.made() < self.asked {
            let (made, asked) = (self.made(), self.asked);
            lacks.push(format!("{made} faults were made of {asked}"));
        }
        let judged = self.checked(Rule::Blame);
        if self.excused * 100 > judged * EXCUSED {
            let excused = self.excused;
            lacks.push(format!("{excused} jobs of {judged} were excused"));
        }
        // Others may not mount anything, perhaps.
        if rustix::process::geteuid().is_root() {
            for what in &self.missing {
                lacks.push(format!("{what} could not go wrong; scripts/setup tests"));
            }
        }
        lacks
    }
}
