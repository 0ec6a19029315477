//! Whether the database is there, so that nobody waits long for one that is not.
//!
//! A database that is away is found out by whoever asks it then: a connection that can't
//! be had within its time opens the breaker. From then on all who ask are refused at
//! once, but one a second, who tries; an answer closes it.
//!
//! ```text
//!         no connection, and nothing answered meanwhile
//!  there ───────────────────────────────────────────────► away ─┐ one a second tries
//!    ▲                        an answer                     │◄──┘
//!    └──────────────────────────────────────────────────────┘
//! ```

use std::{
    error::Error,
    fmt, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Why something was not done: the database was away then. That was told when it went.
#[derive(Debug)]
struct Away(String);

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Away {}

/// Whether something failed only because the database is known to be away: the log has one line
/// when it goes and one when it is back, and needs none of each that asked between.
#[must_use]
pub fn is_away(error: &(dyn Error + 'static)) -> bool {
    if error.is::<Away>() {
        return true;
    }
    // An input or output error hides what it was made of from those who ask for its source.
    let made_of = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match made_of {
        Some(inner) => is_away(inner),
        None => error.source().is_some_and(is_away),
    }
}

/// How often one tries while the database is away.
const TRY: Duration = Duration::from_secs(1);

/// Whether the database is there.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Seen>);

/// What was seen of it.
#[derive(Debug, Default)]
struct Seen {
    /// When it was tried last, while it is away.
    away: Option<Instant>,
    /// When it answered last.
    answered: Option<Instant>,
    /// When a connection broke last: older ones may have, too.
    broke: Option<Instant>,
}

impl Breaker {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to ask now. Who is told so tries for all others.
    pub(crate) fn may_ask(&self, now: Instant) -> bool {
        let mut seen = self.seen();
        match seen.away {
            Some(tried) if now.saturating_duration_since(tried) < TRY => false,
            Some(_) => {
                seen.away = Some(now);
                true
            }
            None => true,
        }
    }

    /// It answered. Tells whether it was away until now.
    pub(crate) fn answered(&self, now: Instant) -> bool {
        let mut seen = self.seen();
        seen.answered = Some(now);
        seen.away.take().is_some()
    }

    /// Who began to wait for a connection then got none. With an answer to somebody
    /// else meanwhile it is only busy. Tells whether it is away from now on.
    pub(crate) fn refused(&self, began: Instant, now: Instant) -> bool {
        let mut seen = self.seen();
        if seen.answered.is_some_and(|answered| answered > began) {
            return false;
        }
        seen.broke = Some(now);
        seen.away.replace(now).is_none()
    }

    /// What those are told who asked in vain: as it was, and that it is away if that is known.
    pub(crate) fn told(&self, error: sqlx::Error) -> sqlx::Error {
        match self.seen().away {
            None => error,
            Some(_) => {
                let away = Away(error.to_string());
                sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, away))
            }
        }
    }

    /// A connection broke, or took too long.
    pub(crate) fn broke(&self, now: Instant) {
        self.seen().broke = Some(now);
    }

    /// Whether a connection that was made then is to be tried before it is used.
    pub(crate) fn doubts(&self, made: Instant) -> bool {
        self.seen().broke.is_some_and(|broke| broke >= made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn while_the_database_is_away_one_tries_a_second_and_all_others_are_refused() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(breaker.may_ask(start));
        assert!(breaker.refused(start, after(start, 10)));
        let asked = (1..=25).map(|tenth| after(start, 10 + 100 * tenth));
        let tried: Vec<_> = asked.filter(|now| breaker.may_ask(*now)).collect();
        assert_eq!(tried, [after(start, 1010), after(start, 2010)]);
        // It is away already.
        assert!(!breaker.refused(tried[1], after(start, 2100)));
        assert!(breaker.answered(after(start, 2600)));
        assert!(breaker.may_ask(after(start, 2600)) && breaker.may_ask(after(start, 2600)));
    }

    #[test]
    fn a_database_that_answers_others_is_only_busy() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(!breaker.answered(after(start, 50)));
        assert!(!breaker.refused(start, after(start, 100)));
        assert!(breaker.may_ask(after(start, 100)));
        assert!(breaker.refused(after(start, 60), after(start, 200)));
    }

    #[test]
    fn when_one_connection_broke_older_ones_are_doubted_and_newer_ones_are_not() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(!breaker.doubts(start));
        breaker.broke(after(start, 100));
        assert!(breaker.doubts(after(start, 99)));
        assert!(!breaker.doubts(after(start, 101)));
    }
}
