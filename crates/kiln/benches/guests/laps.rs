//! Collects what kiln says of where its time goes: the laps of a start, and
//! QEMU's answers.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// One of them.
pub struct Lap {
    /// What was done.
    pub what: String,
    /// How long it took, in milliseconds.
    pub milliseconds: f64,
    /// When it ended.
    at: Instant,
}

/// All since the last look.
#[derive(Clone, Default)]
pub struct Laps(Arc<Mutex<Vec<Lap>>>);

impl Laps {
    /// Listens to all of this process from now on. Warnings go to standard
    /// error.
    pub fn listen() -> Self {
        let laps = Self::default();
        tracing_subscriber::registry()
            .with(EnvFilter::new("warn,kiln_vm=debug"))
            .with(laps.clone())
            .init();
        laps
    }

    /// Takes those that ended before this moment, and forgets the others.
    pub fn take(&self, before: Instant) -> Vec<Lap> {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().filter(|lap| lap.at <= before).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Lap>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Laps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        if *event.metadata().level() <= Level::WARN {
            #[expect(clippy::print_stderr, reason = "whoever measures wants to know")]
            {
                eprintln!("{}", message.0);
            }
        } else if let Some((what, milliseconds)) = read(&message.0) {
            let at = Instant::now();
            self.lock().push(Lap {
                what,
                milliseconds,
                at,
            });
        }
    }
}

/// `WHAT: N ms`.
fn read(message: &str) -> Option<(String, f64)> {
    let (what, took) = message.strip_suffix(" ms")?.rsplit_once(": ")?;
    Some((what.to_owned(), took.parse().ok()?))
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // A String takes everything.
            let _ = write!(self.0, "{value:?}");
        }
    }
}
