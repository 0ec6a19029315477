//! Farms under a simulated clock keep their promises, and one that is broken does not.
//!
//! `SIM_SEEDS=n` runs so many seeds, from `SIM_SEED` on; `SIM_SEED=n` alone runs one, and
//! writes its history into `SIM_HISTORY` if that is set.

use std::collections::BTreeMap;

use kiln_core::testing::{
    checker::{self, Report, Rule},
    sim::{self, Broken, PROMISES, Ran},
};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

fn judged(seed: u64, broken: Option<Broken>) -> (Ran, Report) {
    let ran = sim::run(seed, broken);
    let report = checker::check(&ran.history, &PROMISES);
    (ran, report)
}

#[test]
fn a_seed_replays_bit_for_bit() {
    for seed in 0..5 {
        let (one, two) = (sim::run(seed, None), sim::run(seed, None));
        assert_eq!(
            one.history.to_lines(),
            two.history.to_lines(),
            "seed {seed}"
        );
    }
    assert_ne!(sim::run(0, None).history, sim::run(1, None).history);
}

#[test]
fn whatever_goes_wrong_the_farm_keeps_its_promises() {
    let one = number("SIM_SEED");
    let first = one.unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(if one.is_some() { 1 } else { 100 });
    let mut faults: BTreeMap<String, u32> = BTreeMap::new();
    let mut checked: BTreeMap<Rule, u64> = BTreeMap::new();
    let (mut jobs, mut entries, mut failed) = (0, 0, 0);
    for seed in first..first + seeds {
        let (ran, report) = judged(seed, None);
        if let Ok(path) = std::env::var("SIM_HISTORY") {
            std::fs::write(path, ran.history.to_lines()).unwrap();
        }
        for violation in &report.violations {
            println!("SIM_SEED={seed}: {violation}");
        }
        failed += u64::from(!report.violations.is_empty());
        jobs += ran.jobs;
        entries += ran.history.entries().len();
        for (kind, count) in ran.faults {
            *faults.entry(kind).or_default() += count;
        }
        for (rule, count) in report.checked {
            *checked.entry(rule).or_default() += count;
        }
    }
    let made: u32 = faults.values().sum();
    println!("{seeds} seeds: {jobs} jobs, {made} faults, {entries} entries");
    println!("faults: {faults:?}");
    for (rule, count) in &checked {
        println!("{count:>10} times looked at: {rule}");
    }
    assert_eq!(failed, 0, "seeds broke a promise: see above");
    if seeds >= 100 {
        assert_eq!(
            checked.len(),
            Rule::ALL.len(),
            "a rule was never put to the test"
        );
    }
}

#[test]
fn a_farm_that_is_broken_is_found() {
    let all = [
        (Broken::KeysForgotten, Rule::OneJob),
        (Broken::AnswersStale, Rule::EndsStay),
        (Broken::CancelsForgotten, Rule::Cancels),
        (Broken::FencesForgotten, Rule::OneFence),
        (Broken::BegunForgotten, Rule::TasksOnce),
        (Broken::SharesForgotten, Rule::Fair),
        (Broken::OffsetsForgotten, Rule::LogsWhole),
        (Broken::StoredLate, Rule::LogsKept),
        (Broken::ReapedEarly, Rule::Blame),
        (Broken::LookBelieved, Rule::Blame),
        (Broken::StartedEarly, Rule::BegunFirst),
        (Broken::LeaseBelieved, Rule::Finishes),
    ];
    for (broken, rule) in all {
        let found =
            (0..400).find(|seed| judged(*seed, Some(broken)).1.broken_rules().contains(&rule));
        let Some(seed) = found else {
            panic!("{broken:?} is not found by the rule: {rule}");
        };
        println!("{broken:?}: seed {seed}: {rule}");
    }
}
