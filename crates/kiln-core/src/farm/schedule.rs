//! Who gets which slot.
//!
//! The share with the fewest running jobs comes first; among equals the one whose
//! turn was longest ago. Within a share the higher priority comes first, then the
//! older job. A job goes to the worker that could do the least else, so that the
//! versatile ones stay free for what needs them.

use super::{JobId, Labels, Requirements, SessionId, ShareId};

/// Free slots of a worker's session.
#[derive(Debug, Clone)]
pub struct Slots {
    /// Whose.
    pub session: SessionId,
    /// How many.
    pub free: u32,
    /// What it serves.
    pub labels: Labels,
}

/// What fairness counts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Which.
    pub id: ShareId,
    /// Its jobs that run.
    pub running: u32,
    /// How many of them may.
    pub cap: Option<u32>,
    /// When it was given a slot last: a number that grows with each that is given.
    pub turn: i64,
}

/// The queue of one share for one kind of worker.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Whose.
    pub share: ShareId,
    /// What its jobs ask for.
    pub requirements: Requirements,
    /// Its first jobs: in any order, as many as there are free slots that serve
    /// them, or all.
    pub heads: Vec<Head>,
}

/// A job at the head of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub job: JobId,
    /// Higher comes first.
    pub priority: i32,
    /// When it was first queued, by any clock that all of them were.
    pub since: i64,
}

impl Head {
    /// The order within a share.
    fn order(&self) -> (std::cmp::Reverse<i32>, i64, JobId) {
        (std::cmp::Reverse(self.priority), self.since, self.job)
    }
}

/// A job and the session that is to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The session.
    pub session: SessionId,
}

/// Matches free slots with jobs, in the order in which they are to be given. No job
/// is left over that a slot which is left over could serve, but for its share's cap.
/// A lane of a share that is not among the shares is left alone.
#[must_use]
pub fn assign(slots: &[Slots], shares: &[Share], lanes: &[Lane]) -> Vec<Assignment> {
    let mut pass = Pass::new(slots, shares, lanes);
    std::iter::from_fn(|| pass.next()).collect()
}

/// A lane in the midst of a pass.
struct Waiting {
    share: usize,
    /// The sessions that serve it, by their places.
    served_by: Vec<usize>,
    /// Its jobs, the first one last.
    heads: Vec<Head>,
}

struct Pass<'a> {
    slots: &'a [Slots],
    free: Vec<u32>,
    /// How many lanes each serves.
    able: Vec<u32>,
    shares: Vec<Share>,
    lanes: Vec<Waiting>,
    turn: i64,
}

impl<'a> Pass<'a> {
    fn new(slots: &'a [Slots], shares: &[Share], lanes: &[Lane]) -> Self {
        let places: std::collections::BTreeMap<ShareId, usize> =
            shares.iter().map(|share| share.id).zip(0..).collect();
        let mut waiting: Vec<Waiting> = Vec::new();
        // Lanes come by class, and all of one class are served by the same.
        let mut last: Option<(&Requirements, Vec<usize>)> = None;
        for lane in lanes {
            let Some(&share) = places.get(&lane.share) else {
                continue;
            };
            let serves = |(_, slots): &(usize, &Slots)| {
                slots.free > 0 && slots.labels.serves(&lane.requirements).is_some()
            };
            let served_by = match last.take() {
                Some((same, served_by)) if *same == lane.requirements => served_by,
                _ => {
                    let serving = slots.iter().enumerate().filter(serves);
                    serving.map(|(place, _)| place).collect()
                }
            };
            last = Some((&lane.requirements, served_by.clone()));
            if served_by.is_empty() {
                continue;
            }
            let mut heads = lane.heads.clone();
            heads.sort_unstable_by_key(|head| std::cmp::Reverse(head.order()));
            waiting.push(Waiting {
                share,
                served_by,
                heads,
            });
        }
        let mut able = vec![0u32; slots.len()];
        for place in waiting.iter().flat_map(|lane| &lane.served_by) {
            able[*place] += 1;
        }
        Self {
            slots,
            free: slots.iter().map(|slots| slots.free).collect(),
            able,
            turn: shares.iter().map(|share| share.turn).max().unwrap_or(0),
            shares: shares.to_vec(),
            lanes: waiting,
        }
    }

    /// Gives the next slot.
    fn next(&mut self) -> Option<Assignment> {
        let free = &self.free;
        self.lanes.retain(|lane| {
            !lane.heads.is_empty() && lane.served_by.iter().any(|place| free[*place] > 0)
        });
        let shares = &self.shares;
        let (lane, _) = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| below_cap(&shares[lane.share]))
            .filter_map(|(place, lane)| {
                let share = &shares[lane.share];
                let head = lane.heads.last()?;
                Some((place, (share.running, share.turn, head.order())))
            })
            .min_by_key(|(_, order)| *order)?;
        let lane = &mut self.lanes[lane];
        let head = lane.heads.pop()?;
        let able = &self.able;
        let serving = lane.served_by.iter().copied();
        let place = serving
            .filter(|place| free[*place] > 0)
            .min_by_key(|place| (able[*place], std::cmp::Reverse(free[*place])))?;
        self.free[place] -= 1;
        self.turn += 1;
        let share = &mut self.shares[lane.share];
        share.running += 1;
        share.turn = self.turn;
        Some(Assignment {
            job: head.job,
            session: self.slots[place].session.clone(),
        })
    }
}

fn below_cap(share: &Share) -> bool {
    share.cap.is_none_or(|cap| share.running < cap)
}
