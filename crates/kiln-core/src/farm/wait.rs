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
/// as the others. Among shares with as many, those come first that had them before.
fn position(queue: &Queue<'_>) -> u32 {
    let order = |share: &Share| (std::cmp::Reverse(share.running), share.turn, share.id);
    let level = queue.share.running.saturating_add(queue.before);
    let ahead = |(other, queued): &(Share, u32)| {
        let first = order(other) < order(queue.share);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        JobId, OfferedImage, SessionId, ShareId,
        schedule::{Head, Lane, Slots, assign},
        *,
    };
    use super::*;

    fn labels() -> Labels {
        Labels {
            images: vec![OfferedImage {
                name: "debian".into(),
                arch: "x86_64".into(),
                digest: "d".into(),
                default: true,
            }],
            labels: [("ssd".into(), "yes".into())].into(),
        }
    }

    fn here(name: &str, slots: u32, capacity: u32, held: u32) -> Here {
        Here {
            name: name.into(),
            labels: labels(),
            slots,
            capacity,
            held,
            stopped: None,
            short_of: None,
        }
    }

    fn share(id: i64, running: u32, turn: i64) -> Share {
        Share {
            id: ShareId(id),
            running,
            cap: None,
            turn,
        }
    }

    fn why(wanted: &str, here: &[Here]) -> WaitReason {
        let queue = Queue {
            share: &share(1, 1, 0),
            before: 0,
            others: &[],
        };
        reason(&Requirements::parse(wanted).unwrap(), here, &queue)
    }

    #[test]
    fn the_reason_is_the_first_thing_that_is_lacking() {
        let busy = here("a", 1, 1, 1);
        let here = [busy.clone()];
        assert_eq!(why("image=guix", &here), WaitReason::NoImage);
        assert_eq!(why("arch=arm64 image=debian", &here), WaitReason::NoImage);
        assert_eq!(why("image=debian", &[]), WaitReason::NoImage);
        assert_eq!(why("image=debian gpu=yes", &here), WaitReason::NoLabels);
        assert_eq!(why("image=debian ssd=yes", &here), WaitReason::Busy(1));
    }

    #[test]
    fn workers_that_take_none_are_named_but_not_all_of_many() {
        let stopped = |number: u32| Here {
            stopped: Some("is draining".into()),
            ..here(&format!("w{number}"), 1, 1, 0)
        };
        let all: Vec<Here> = (0..7).map(stopped).collect();
        let WaitReason::NoneReady(names) = why("image=debian", &all) else {
            panic!("none is ready");
        };
        assert!(names.starts_with("w0 is draining, w1 is draining"));
        assert!(names.ends_with(" and 2 more"), "{names}");
        let one = [stopped(0), here("b", 1, 1, 0)];
        assert_eq!(why("image=debian", &one), WaitReason::Next);
    }

    #[test]
    fn memory_is_the_reason_only_while_a_slot_is_free() {
        let lacking = |held| Here {
            short_of: Some("is short of memory".into()),
            ..here("a", 2, held, held)
        };
        let short = WaitReason::ShortOf("a is short of memory".into());
        assert_eq!(why("image=debian", &[lacking(1)]), short);
        assert_eq!(why("image=debian", &[lacking(2)]), WaitReason::Busy(1));
        let both = [lacking(1), here("b", 1, 1, 0)];
        assert_eq!(why("image=debian", &both), WaitReason::Next);
    }

    #[test]
    fn the_cap_is_the_reason_while_others_run() {
        let mut capped = share(1, 2, 0);
        capped.cap = Some(2);
        let queue = Queue {
            share: &capped,
            before: 0,
            others: &[],
        };
        let wanted = Requirements::parse("image=debian").unwrap();
        let free = [here("a", 9, 9, 2)];
        assert_eq!(reason(&wanted, &free, &queue), WaitReason::ShareCap(2));
    }

    proptest! {
        /// Were so many slots free as the position says, the job would have the last.
        #[test]
        fn the_position_is_the_place_in_the_order_of_the_scheduler(
            shares in prop::collection::vec((0u32..4, 1u32..6, 0i64..4, prop::option::of(0u32..8)), 1..5),
            whose: prop::sample::Index, which: prop::sample::Index,
        ) {
            let shares: Vec<(Share, u32)> = (0..)
                .zip(shares)
                .map(|(id, (running, queued, turn, cap))| {
                    // Turns are fences: no two shares have the same, but those that had none.
                    let turn = if turn == 0 { 0 } else { turn * 10 + id };
                    (Share { cap, ..share(id, running, turn) }, queued)
                })
                .collect();
            let place = whose.index(shares.len());
            let (own, queued) = &shares[place];
            let before = u32::try_from(which.index(usize::try_from(*queued).unwrap())).unwrap();
            prop_assume!(own.cap.is_none_or(|cap| own.running + before < cap));
            let others: Vec<_> =
                shares.iter().filter(|(other, _)| other.id != own.id).cloned().collect();
            let told = position(&Queue { share: own, before, others: &others });

            let job = |share: &Share, number: u32| JobId(
                i32::try_from(share.id.0 * 100 + i64::from(number)).unwrap()
            );
            let wanted = Requirements::parse("image=debian").unwrap();
            let lanes: Vec<Lane> = shares
                .iter()
                .map(|(share, queued)| Lane {
                    share: share.id,
                    requirements: wanted.clone(),
                    heads: (0..*queued)
                        .map(|number| Head {
                            job: job(share, number),
                            priority: 0,
                            since: i64::from(number) * 100 + share.id.0,
                        })
                        .collect(),
                })
                .collect();
            let slots = Slots { session: SessionId::new([1; 16]), free: told, labels: labels() };
            let all: Vec<Share> = shares.iter().map(|(share, _)| share.clone()).collect();
            let given = assign(&[slots], &all, &lanes);
            prop_assert_eq!(given.last().unwrap().job, job(own, before));
        }
    }
}
