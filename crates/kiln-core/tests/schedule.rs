//! Who gets which slot: what must hold whatever waits and whoever is there.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::farm::{
    JobId, Labels, OfferedImage, Requirements, SessionId, ShareId,
    schedule::{Assignment, Head, Lane, Share, Slots, assign},
};
use proptest::prelude::*;

const IMAGES: [&str; 4] = ["alpine", "arch", "debian", "guix"];

fn wanting(image: &str) -> Requirements {
    Requirements::parse(&format!("image={image}")).expect("requirements")
}

fn session(number: usize) -> SessionId {
    SessionId::new([u8::try_from(number).expect("few"); 16])
}

fn slots(number: usize, free: u32, images: &BTreeSet<&str>) -> Slots {
    let offered = |name: &&str| OfferedImage {
        name: (*name).into(),
        arch: "x86_64".into(),
        digest: "d".into(),
        default: true,
    };
    Slots {
        session: session(number),
        free,
        labels: Labels {
            images: images.iter().map(offered).collect(),
            labels: BTreeMap::new(),
        },
    }
}

fn share(id: i64, running: u32) -> Share {
    Share {
        id: ShareId(id),
        running,
        cap: None,
        turn: 0,
    }
}

/// A whole farm.
#[derive(Debug, Clone)]
struct Farm {
    slots: Vec<Slots>,
    shares: Vec<Share>,
    lanes: Vec<Lane>,
}

impl Farm {
    fn assign(&self) -> Vec<Assignment> {
        assign(&self.slots, &self.shares, &self.lanes)
    }

    fn lane_of(&self, job: JobId) -> &Lane {
        let has = |lane: &&Lane| lane.heads.iter().any(|head| head.job == job);
        self.lanes.iter().find(has).expect("it was waiting")
    }

    fn slots_of(&self, session: &SessionId) -> &Slots {
        let found = self.slots.iter().find(|slots| slots.session == *session);
        found.expect("it is there")
    }

    /// Running jobs by share, with those that were assigned.
    fn running(&self, given: &[Assignment]) -> BTreeMap<ShareId, u32> {
        let mut running: BTreeMap<ShareId, u32> = self
            .shares
            .iter()
            .map(|share| (share.id, share.running))
            .collect();
        for one in given {
            *running.entry(self.lane_of(one.job).share).or_default() += 1;
        }
        running
    }

    fn left(&self, given: &[Assignment]) -> BTreeMap<SessionId, u32> {
        let mut left: BTreeMap<SessionId, u32> = self
            .slots
            .iter()
            .map(|slots| (slots.session.clone(), slots.free))
            .collect();
        for one in given {
            let free = left.get_mut(&one.session).expect("it is there");
            *free = free.checked_sub(1).expect("no slot is given twice");
        }
        left
    }
}

fn farms() -> impl Strategy<Value = Farm> {
    let images = prop::collection::btree_set(prop::sample::select(IMAGES.to_vec()), 0..4);
    let builder = (0u32..4, images);
    let a_share = (0u32..5, prop::option::of(0u32..6), 0i64..9);
    // Share, image, and each job's priority and age.
    let heads = prop::collection::vec((-2i32..3, 0i64..5), 0..6);
    let lane = (0usize..4, prop::sample::select(IMAGES.to_vec()), heads);
    (
        prop::collection::vec(builder, 0..5),
        prop::collection::vec(a_share, 4),
        prop::collection::vec(lane, 0..8),
    )
        .prop_map(|(builders, shares, lanes)| {
            let mut jobs = 0..;
            let builders = builders.iter().enumerate();
            Farm {
                slots: builders
                    .map(|(number, (free, images))| slots(number, *free, images))
                    .collect(),
                shares: (0..)
                    .zip(shares)
                    .map(|(id, (running, cap, turn))| Share {
                        id: ShareId(id),
                        running,
                        cap,
                        turn,
                    })
                    .collect(),
                lanes: lanes
                    .into_iter()
                    .map(|(share, image, heads)| Lane {
                        share: ShareId(i64::try_from(share).expect("few")),
                        requirements: wanting(image),
                        heads: heads
                            .into_iter()
                            .zip(jobs.by_ref())
                            .map(|((priority, since), job)| Head {
                                job: JobId(job),
                                priority,
                                since,
                            })
                            .collect(),
                    })
                    .collect(),
            }
        })
}

proptest! {
    #[test]
    fn no_slot_and_no_job_is_given_twice(farm in farms()) {
        let given = farm.assign();
        farm.left(&given);
        let jobs: BTreeSet<JobId> = given.iter().map(|one| one.job).collect();
        prop_assert_eq!(jobs.len(), given.len());
    }

    #[test]
    fn a_job_goes_where_it_is_served(farm in farms()) {
        for one in farm.assign() {
            let labels = &farm.slots_of(&one.session).labels;
            prop_assert!(labels.serves(&farm.lane_of(one.job).requirements).is_some());
        }
    }

    #[test]
    fn caps_hold(farm in farms()) {
        let running = farm.running(&farm.assign());
        for share in &farm.shares {
            let most = share.cap.map_or(u32::MAX, |cap| cap.max(share.running));
            prop_assert!(running[&share.id] <= most);
        }
    }

    #[test]
    fn everything_that_can_be_assigned_is(farm in farms()) {
        let given = farm.assign();
        let (left, running) = (farm.left(&given), farm.running(&given));
        let gone: BTreeSet<JobId> = given.iter().map(|one| one.job).collect();
        for lane in &farm.lanes {
            let share = farm.shares.iter().find(|share| share.id == lane.share).expect("known");
            let capped = share.cap.is_some_and(|cap| running[&share.id] >= cap);
            let waits = lane.heads.iter().any(|head| !gone.contains(&head.job));
            let served = farm.slots.iter().any(|slots| {
                left[&slots.session] > 0 && slots.labels.serves(&lane.requirements).is_some()
            });
            prop_assert!(!waits || capped || !served, "{:?}", lane);
        }
    }

    #[test]
    fn within_a_lane_priority_comes_first_and_then_age(farm in farms()) {
        let given = farm.assign();
        for lane in &farm.lanes {
            let mut order = lane.heads.clone();
            order.sort_by_key(|head| (-head.priority, head.since, head.job));
            let jobs = given.iter().map(|one| one.job);
            let gone: Vec<JobId> = jobs
                .filter(|job| lane.heads.iter().any(|head| head.job == *job))
                .collect();
            let first: Vec<JobId> =
                order.iter().take(gone.len()).map(|head| head.job).collect();
            prop_assert_eq!(gone, first);
        }
    }

    #[test]
    fn among_shares_for_the_same_slots_none_gets_more_while_another_has_less(farm in farms()) {
        let mut farm = farm;
        for lane in &mut farm.lanes {
            lane.requirements = wanting("debian");
        }
        let given = farm.assign();
        // Replay: whoever is given a slot has the fewest of those that still wait.
        for count in 0..given.len() {
            let running = farm.running(&given[..count]);
            let gone: BTreeSet<JobId> = given[..count].iter().map(|one| one.job).collect();
            let whose = farm.lane_of(given[count].job).share;
            for lane in &farm.lanes {
                let share = farm.shares.iter().find(|share| share.id == lane.share).expect("known");
                let capped = share.cap.is_some_and(|cap| running[&share.id] >= cap);
                let waits = lane.heads.iter().any(|head| !gone.contains(&head.job));
                prop_assert!(capped || !waits || running[&whose] <= running[&lane.share]);
            }
        }
    }

    #[test]
    fn what_nobody_serves_changes_nothing(farm in farms(), heads in 1i32..9) {
        let before = farm.assign();
        let mut with = farm.clone();
        let head = |number| Head { job: JobId(1000 + number), priority: 99, since: -1 };
        for share in &farm.shares {
            with.lanes.insert(0, Lane {
                share: share.id,
                requirements: wanting("plan9"),
                heads: (0..heads).map(head).collect(),
            });
        }
        prop_assert_eq!(before, with.assign());
    }

    /// A simulated farm: jobs end in any order. A share that comes with one job
    /// waits for no more than the next slot, whatever the other has queued.
    #[test]
    fn ten_thousand_jobs_of_one_share_delay_another_by_one_turn(
        slots_there in 1u32..5, before in 0u32..12, ends in prop::collection::vec(any::<usize>(), 1..30)
    ) {
        let all = BTreeSet::from(["debian"]);
        let mut bot = share(1, 0);
        let mut turn = 0;
        let mut next = 0;
        let mut running: Vec<JobId> = Vec::new();
        let pass = |running: &mut Vec<JobId>, bot: &mut Share, next: &mut i32, turn: &mut i64, ann: bool| {
            let free = slots_there - u32::try_from(running.len()).expect("few");
            bot.running = u32::try_from(running.len()).expect("few");
            let heads = (*next..10_000).take(usize::try_from(free).expect("few"));
            let mut lanes = vec![Lane {
                share: bot.id,
                requirements: wanting("debian"),
                heads: heads.map(|job| Head { job: JobId(job), priority: 9, since: 0 }).collect(),
            }];
            let head = Head { job: JobId(10_000), priority: 0, since: 1 };
            lanes.extend(ann.then(|| Lane {
                share: ShareId(2),
                requirements: wanting("debian"),
                heads: vec![head],
            }));
            let given = assign(&[slots(0, free, &all)], &[bot.clone(), share(2, 0)], &lanes);
            for one in &given {
                *turn += 1;
                if one.job == head.job {
                    return true;
                }
                bot.turn = *turn;
                *next += 1;
                running.push(one.job);
            }
            false
        };
        let mut ends = ends.into_iter().cycle();
        for _ in 0..before {
            pass(&mut running, &mut bot, &mut next, &mut turn, false);
            let place = ends.next().expect("endless") % running.len();
            running.remove(place);
        }
        pass(&mut running, &mut bot, &mut next, &mut turn, false);
        prop_assert_eq!(running.len(), usize::try_from(slots_there).expect("few"));
        let place = ends.next().expect("endless") % running.len();
        running.remove(place);
        prop_assert!(pass(&mut running, &mut bot, &mut next, &mut turn, true));
    }
}

#[test]
fn a_versatile_worker_is_left_for_what_needs_it() {
    let both = slots(0, 1, &BTreeSet::from(["debian", "guix"]));
    let plain = slots(1, 1, &BTreeSet::from(["debian"]));
    let lane = |image, job| Lane {
        share: ShareId(1),
        requirements: wanting(image),
        heads: vec![Head {
            job: JobId(job),
            priority: 0,
            since: i64::from(job),
        }],
    };
    let lanes = [lane("debian", 1), lane("guix", 2)];
    let given = assign(&[both, plain], &[share(1, 0)], &lanes);
    let jobs: Vec<_> = given
        .iter()
        .map(|one| (one.job.0, one.session.clone()))
        .collect();
    assert_eq!(jobs, [(1, session(1)), (2, session(0))]);
}

#[test]
fn among_equals_whose_turn_was_longest_ago_comes_first() {
    let all = BTreeSet::from(["debian"]);
    let lane = |share, since| Lane {
        share: ShareId(share),
        requirements: wanting("debian"),
        heads: vec![Head {
            job: JobId(i32::try_from(share).expect("few")),
            priority: 0,
            since,
        }],
    };
    let mut late = share(1, 0);
    late.turn = 7;
    // The older job is the other share's, which had its turn just now.
    let lanes = [lane(1, 0), lane(2, 9)];
    let given = assign(&[slots(0, 1, &all)], &[late, share(2, 0)], &lanes);
    assert_eq!(given[0].job, JobId(2));
}
