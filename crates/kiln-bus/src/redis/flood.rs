//! How much is said on the bus, and when that is too much.
//!
//! What comes is a stranger's until its seal was looked at. What a member says is its own
//! affair up to as much as would be a flood of strangers: many members that all have much to
//! say are none.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::Member;

/// How often a flood is looked for.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// More messages than this in a second are no hints.
const MESSAGES: u64 = 10_000;
/// Nor are more bytes.
const BYTES: u64 = 32 << 20;
/// So many members are told apart.
const MEMBERS: usize = 64;

/// What was said since somebody looked last.
#[derive(Debug)]
pub(super) struct Flood(Mutex<Said>);

#[derive(Debug)]
struct Said {
    strange: Amount,
    members: HashMap<Member, Amount>,
    looked: Instant,
    /// This process stood still: what waited meanwhile comes at once.
    late: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Amount {
    messages: u64,
    bytes: u64,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Said {
            strange: Amount::default(),
            members: HashMap::new(),
            looked: now,
            late: false,
        }))
    }

    /// A message has come.
    pub(super) fn came(&self, bytes: usize) {
        let mut said = self.said();
        said.strange.messages += 1;
        said.strange.bytes += bytes as u64;
    }

    /// It was this member's.
    pub(super) fn known(&self, member: Member, bytes: usize) {
        let bytes = bytes as u64;
        let mut said = self.said();
        if said.members.len() >= MEMBERS && !said.members.contains_key(&member) {
            return;
        }
        let its = said.members.entry(member).or_default();
        if its.messages < MESSAGES && its.bytes + bytes <= BYTES {
            its.messages += 1;
            its.bytes += bytes;
            said.strange.messages = said.strange.messages.saturating_sub(1);
            said.strange.bytes = said.strange.bytes.saturating_sub(bytes);
        }
    }

    /// Looks whether it was too much, a [`WINDOW`] after the last look: a sentence if so.
    pub(super) fn look(&self, now: Instant) -> Option<String> {
        let mut said = self.said();
        let Amount { messages, bytes } = std::mem::take(&mut said.strange);
        said.members.clear();
        let passed = now.saturating_duration_since(said.looked);
        said.looked = now;
        let late = passed > 2 * WINDOW;
        let excused = std::mem::replace(&mut said.late, late) || late;
        (!excused && (messages > MESSAGES || bytes > BYTES))
            .then(|| format!("somebody floods it: {messages} messages, {bytes} bytes in a second"))
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 64 << 10;

    /// So many bytes of so many members.
    fn say(flood: &Flood, members: u8, bytes: usize) {
        for member in 0..members {
            for _ in 0..bytes / MESSAGE {
                flood.came(MESSAGE);
                flood.known([member; 8], MESSAGE);
            }
        }
    }

    #[test]
    fn what_many_members_say_is_no_flood_and_what_strangers_say_is_one() {
        let mut now = Instant::now();
        let flood = Flood::new(now);
        say(&flood, 10, 16 << 20);
        now += WINDOW;
        assert_eq!(flood.look(now), None);
        for _ in 0..=(32 << 20) / MESSAGE {
            flood.came(MESSAGE);
        }
        now += WINDOW;
        assert!(flood.look(now).unwrap().contains("floods"));
        now += WINDOW;
        assert_eq!(flood.look(now), None);
    }

    #[test]
    fn what_somebody_repeats_of_one_member_again_and_again_is_a_flood() {
        let now = Instant::now();
        let flood = Flood::new(now);
        say(&flood, 1, 80 << 20);
        assert!(flood.look(now + WINDOW).is_some());
    }

    #[test]
    fn what_waited_while_this_process_stood_still_is_no_flood() {
        let mut now = Instant::now();
        let flood = Flood::new(now);
        let backlog = || (0..20_000).for_each(|_| flood.came(100));
        for (passed, floods) in [(30, false), (1, false), (1, true)] {
            backlog();
            now += passed * WINDOW;
            assert_eq!(flood.look(now).is_some(), floods);
        }
    }
}
