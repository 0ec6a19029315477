//! Why a queued job waits.

use super::{Labels, Requirements, schedule::Share};

/// Why a queued job is not given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// No worker that is here has such an image.
    NoImage,
    /// Workers that are here have the image, and not the labels asked for.
    NoLabels,
    /// All workers that could are paused, draining or unwell; which.
    NoneReady(String),
    /// The share has as many running jobs as it may have.
    ShareCap(u32),
    /// All slots that could are taken; how many jobs come first, plus one.
    Busy(u32),
    /// Workers that could lack memory or disk; which.
    ShortOf(String),
    /// The next pass will take it.
    Next,
}

/// A worker that is here.
#[derive(Debug, Clone)]
pub struct Here {
    /// What it is called.
    pub name: String,
    /// What it serves.
    pub labels: Labels,
    /// How many jobs it may run at once.
    pub slots: u32,
    /// How many it would have now.
    pub capacity: u32,
    /// How many it has.
    pub held: u32,
    /// Why it takes none: `is draining`.
    pub stopped: Option<String>,
    /// What it lacks for more.
    pub short_of: Option<String>,
}

impl Here {
    fn is_free(&self) -> bool {
        self.held < self.capacity.min(self.slots)
    }
}

/// What stands between a job and its slot.
#[derive(Debug, Clone)]
pub struct Queue<'a> {
    /// The job's share.
    pub share: &'a Share,
    /// How many jobs of that share come before it for the same slots.
    pub before: u32,
    /// The other shares that wait for the same slots, and how many jobs of each do.
    pub others: &'a [(Share, u32)],
}

/// Why a job waits. Of several reasons the one that somebody can do the least
/// about by waiting comes first.
#[must_use]
pub fn reason(wanted: &Requirements, here: &[Here], queue: &Queue<'_>) -> WaitReason {
    let no_more = Requirements {
        labels: std::collections::BTreeMap::new(),
        ..wanted.clone()
    };
    if !here.iter().any(|one| one.labels.serves(&no_more).is_some()) {
        return WaitReason::NoImage;
    }
    let able: Vec<&Here> = here
        .iter()
        .filter(|one| one.labels.serves(wanted).is_some())
        .collect();
    if able.is_empty() {
        return WaitReason::NoLabels;
    }
    let ready: Vec<&Here> = able
        .iter()
        .copied()
        .filter(|one| one.stopped.is_none())
        .collect();
    if ready.is_empty() {
        return WaitReason::NoneReady(named(&able, |one| one.stopped.as_deref()));
    }
    if let Some(cap) = queue.share.cap.filter(|cap| queue.share.running >= *cap) {
        return WaitReason::ShareCap(cap);
    }
    if ready.iter().any(|one| one.is_free()) {
        return WaitReason::Next;
    }
    // Where every slot is taken, more memory would not help.
    if ready
        .iter()
        .any(|one| one.held < one.slots && one.short_of.is_some())
    {
        let lacking: Vec<&Here> = ready
            .into_iter()
            .filter(|one| one.held < one.slots)
            .collect();
        return WaitReason::ShortOf(named(&lacking, |one| one.short_of.as_deref()));
    }
    WaitReason::Busy(position(queue))
}

/// `alder is draining, birch is paused`, at most a few.
fn named<'a>(some: &[&'a Here], what: impl Fn(&'a Here) -> Option<&'a str>) -> String {
    const MOST: usize = 5;
    let words: Vec<String> = some
        .iter()
        .filter_map(|one| Some(format!("{} {}", one.name, what(one)?)))
        .collect();
    let mut text = words
        .iter()
        .take(MOST)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if words.len() > MOST {
        text.push_str(&format!(" and {} more", words.len() - MOST));
    }
    text
}

/// Which place a job has in the order in which slots will be given, from 1, as if none
/// of what runs ended before: its share gets its turn when it has as few running jobs
/// as the others.
fn position(queue: &Queue<'_>) -> u32 {
    let level = queue.share.running.saturating_add(queue.before);
    let ahead = |(other, queued): &(Share, u32)| {
        let first = (other.turn, other.id) < (queue.share.turn, queue.share.id);
        let room = level
            .saturating_add(u32::from(first))
            .saturating_sub(other.running);
        let may = other
            .cap
            .map_or(u32::MAX, |cap| cap.saturating_sub(other.running));
        room.min(*queued).min(may)
    };
    queue
        .others
        .iter()
        .map(ahead)
        .fold(queue.before, u32::saturating_add)
        .saturating_add(1)
}
