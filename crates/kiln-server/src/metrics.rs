//! What `/metrics` shows: builds.sr.ht's names, for its dashboards, and ours.

use std::{fmt, sync::atomic::Ordering};

use kiln_store::model::Counts;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// builds.sr.ht's, in seconds.
const DURATIONS: [f64; 9] = [10.0, 30.0, 60.0, 90.0, 120.0, 300.0, 600.0, 900.0, 1800.0];
/// builds.sr.ht's and finer ones, in seconds.
const SETTLING: [f64; 15] = [
    0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 90.0, 120.0, 300.0,
];
/// Of a pass over the queue, in seconds.
const PASSES: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    status: &'static str,
}

/// An image that a worker has: the images of a farm are few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Image {
    pub(crate) image: String,
    pub(crate) arch: String,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    submitted: Counter,
    running: Gauge,
    workers: Gauge,
    slots: Gauge,
    free: Gauge,
    queued: Gauge,
    durations: Family<Ended, Histogram>,
    runs: Family<Image, Counter>,
    settling: Family<Image, Histogram>,
    /// How long passes over the queue took, in seconds.
    pub(crate) passes: Histogram,
    /// Leases that ended otherwise than by their worker's word.
    pub(crate) lost: Counter,
    /// Bytes of logs that were stored.
    pub(crate) log_bytes: Counter,
    /// Jobs whose logs were packed.
    pub(crate) packed: Counter,
    /// Bytes that were removed because they were kept long enough.
    pub(crate) removed_bytes: Counter,
    /// Objects, or jobs' worth of them, that were removed as no row refers to them any more.
    pub(crate) removed_objects: Counter,
    /// Objects that no row referred to, for no known reason.
    pub(crate) orphans: Counter,
    /// Rows whose objects were missing in the last round.
    pub(crate) missing: Gauge,
    /// What triggers did: nothing on this farm yet.
    triggers: [Counter; 3],
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            submitted: Counter::default(),
            running: Gauge::default(),
            workers: Gauge::default(),
            slots: Gauge::default(),
            free: Gauge::default(),
            queued: Gauge::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            runs: Family::default(),
            settling: Family::new_with_constructor(|| Histogram::new(SETTLING)),
            passes: Histogram::new(PASSES),
            lost: Counter::default(),
            log_bytes: Counter::default(),
            packed: Counter::default(),
            removed_bytes: Counter::default(),
            removed_objects: Counter::default(),
            orphans: Counter::default(),
            missing: Gauge::default(),
            triggers: Default::default(),
        };
        metrics.register_theirs();
        metrics.register_ours();
        metrics
    }
}

impl Metrics {
    /// Names of builds.sr.ht.
    fn register_theirs(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("buildsrht");
        let submitted = self.submitted.clone();
        registry.register("builds_submitted", "Jobs ever submitted", submitted);
        registry.register("builds_running", "Jobs that run", self.running.clone());
        let workers = self.workers.clone();
        registry.register("build_workers", "Workers that are here", workers);
        let durations = self.durations.clone();
        registry.register("build_duration", "Seconds that jobs ran", durations);
        registry.register("image_runs", "Guests started", self.runs.clone());
        registry.register(
            "vm_settle_duration_seconds",
            "Seconds until a guest could be used",
            self.settling.clone(),
        );
        let names = [
            ("triggers_executed", "Triggers run"),
            ("triggers_webhooks", "Webhooks sent"),
            ("triggers_webhooks_failed", "Webhooks that failed"),
        ];
        for ((name, help), counter) in names.into_iter().zip(&self.triggers) {
            registry.register(name, help, counter.clone());
        }
    }

    fn register_ours(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("kiln");
        registry.register(
            "slots",
            "Slots of the workers that are here",
            self.slots.clone(),
        );
        registry.register(
            "slots_free",
            "Slots in which no job runs",
            self.free.clone(),
        );
        registry.register(
            "queue_length",
            "Jobs that wait for a worker",
            self.queued.clone(),
        );
        registry.register(
            "assignment_pass_seconds",
            "Seconds that a pass over the queue took",
            self.passes.clone(),
        );
        registry.register(
            "leases_lost",
            "Leases that ended otherwise than by their worker's word",
            self.lost.clone(),
        );
        let bytes = self.log_bytes.clone();
        registry.register("log_bytes", "Bytes of logs that were stored", bytes);
        self.register_upkeep();
    }

    /// Of what ended jobs keep.
    fn register_upkeep(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("kiln");
        let counters = [
            ("jobs_packed", "Jobs whose logs were packed", &self.packed),
            (
                "removed_bytes",
                "Bytes of logs and artifacts that were kept long enough",
                &self.removed_bytes,
            ),
            (
                "removed_objects",
                "Objects removed after their rows",
                &self.removed_objects,
            ),
            (
                "orphans_removed",
                "Objects removed that nothing referred to",
                &self.orphans,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "objects_missing",
            "Rows whose objects were missing when all were last looked at",
            self.missing.clone(),
        );
    }

    /// A job ended.
    pub(crate) fn ended(&self, status: &'static str, seconds: f64) {
        let ended = self.durations.get_or_create(&Ended { status });
        ended.observe(seconds);
    }

    /// A guest started.
    pub(crate) fn started(&self, image: &Image, seconds: f64) {
        self.runs.get_or_create(image).inc();
        self.settling.get_or_create(image).observe(seconds);
    }

    /// All of it, with what the store counts.
    pub(crate) fn text(&self, counts: &Counts) -> Result<String, fmt::Error> {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let submitted = self.submitted.inner();
        submitted.store(counts.submitted, Ordering::Relaxed);
        self.running.set(signed(counts.running));
        self.workers.set(signed(counts.sessions));
        self.queued.set(signed(counts.queued));
        self.slots.set(signed(counts.slots));
        let free = counts.slots.saturating_sub(counts.running);
        self.free.set(signed(free));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
