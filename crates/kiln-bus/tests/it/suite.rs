//! What holds on each bus: in process, through Redis, and on one that drops everything.

use std::time::Duration;

use kiln_bus::{
    Bus, Heard, Hint, Hub, Key, Status, Subscription,
    testing::{Redis, Setup, dropping},
};
use kiln_core::farm::{JobId, LogName, SessionId};
use tokio::time::timeout;

/// Longer than anything here takes: what waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The farm's.
pub(crate) const KEY: Key = Key([9; 32]);

/// Waits until a bus is connected.
pub(crate) async fn well(bus: &Bus) {
    until(bus, |status| *status == Status::Well).await;
}

/// Waits until a bus is so.
pub(crate) async fn until(bus: &Bus, wanted: impl Fn(&Status) -> bool) -> Status {
    let waits = async {
        loop {
            let status = bus.status();
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waits).await.expect("the bus becomes so")
}

/// Two members that are connected, and listen.
pub(crate) async fn two(redis: &Redis) -> [(Bus, Subscription); 2] {
    let mut members = Vec::new();
    for _ in 0..2 {
        let bus = Bus::redis(&redis.config(), KEY).unwrap();
        let subscription = bus.subscribe();
        well(&bus).await;
        members.push((bus, subscription));
    }
    let Ok(members) = members.try_into() else {
        unreachable!("there are two");
    };
    members
}

/// The next hint; that something may have been missed is none.
pub(crate) async fn hint(subscription: &mut Subscription) -> Hint {
    let waits = async {
        loop {
            match subscription.next().await.expect("the bus is there") {
                Heard::Hint(hint) => return hint,
                Heard::Missed => {}
            }
        }
    };
    timeout(LONG, waits).await.expect("a hint comes")
}

fn all_kinds() -> Vec<Hint> {
    vec![
        Hint::Job(JobId(1)),
        Hint::Session(SessionId::new([7; 16])),
        Hint::Greeted(SessionId::new([8; 16])),
        Hint::Grown(LogName::Job(JobId(1))),
        Hint::Grown(LogName::Task(JobId(2), "build".into())),
        Hint::Live {
            log: LogName::Task(JobId(2), "build".into()),
            offset: 1 << 40,
            bytes: vec![0xff; kiln_bus::LIVE_BYTES].into(),
        },
    ]
}

/// Each hint of one reaches the other, in order, and not itself.
async fn carries([(one, mut own), (other, mut theirs)]: [(Bus, Subscription); 2]) {
    for said in all_kinds() {
        one.publish(said.clone());
        assert_eq!(hint(&mut theirs).await, said);
    }
    other.publish(Hint::Job(JobId(9)));
    assert_eq!(hint(&mut own).await, Hint::Job(JobId(9)));
}

#[tokio::test]
async fn hints_go_between_servers_of_one_process() {
    let hub = Hub::default();
    let member = || {
        let bus = hub.join();
        let subscription = bus.subscribe();
        (bus, subscription)
    };
    carries([member(), member()]).await;
}

#[tokio::test]
async fn hints_go_through_redis() {
    let redis = Redis::start(Setup::default()).unwrap();
    carries(two(&redis).await).await;
}

#[tokio::test]
async fn hints_go_through_redis_with_tls_and_a_user_who_may_do_nothing_else() {
    let redis = Redis::start(Setup {
        password: Some("open-sesame"),
        tls: true,
    })
    .unwrap();
    carries(two(&redis).await).await;
}

#[tokio::test]
async fn a_bus_that_drops_everything_takes_everything_and_says_nothing() {
    let bus = dropping();
    let mut subscription = bus.subscribe();
    for said in all_kinds() {
        bus.publish(said);
    }
    assert_eq!(bus.status(), Status::Well);
    drop(bus);
    assert_eq!(subscription.next().await, None);
}

#[tokio::test]
async fn farms_with_other_numbers_share_a_redis_and_hear_nothing_of_each_other() {
    let redis = Redis::start(Setup::default()).unwrap();
    let [(one, _own), (_other, mut theirs)] = two(&redis).await;
    let mut config = redis.config();
    config.url.push_str("/7");
    let stranger = Bus::redis(&config, KEY).unwrap();
    let mut strange = stranger.subscribe();
    well(&stranger).await;
    stranger.publish(Hint::Job(JobId(7)));
    one.publish(Hint::Job(JobId(1)));
    assert_eq!(hint(&mut theirs).await, Hint::Job(JobId(1)));
    let another = Bus::redis(&config, KEY).unwrap();
    well(&another).await;
    another.publish(Hint::Job(JobId(8)));
    assert_eq!(hint(&mut strange).await, Hint::Job(JobId(8)));
}

#[tokio::test]
async fn a_farm_with_another_key_is_not_heard() {
    let redis = Redis::start(Setup::default()).unwrap();
    let [(one, _own), (_other, mut theirs)] = two(&redis).await;
    let stranger = Bus::redis(&redis.config(), Key([8; 32])).unwrap();
    well(&stranger).await;
    stranger.publish(Hint::Job(JobId(7)));
    let mut third = stranger.subscribe();
    one.publish(Hint::Job(JobId(1)));
    assert_eq!(hint(&mut theirs).await, Hint::Job(JobId(1)));
    stranger.publish(Hint::Job(JobId(8)));
    one.publish(Hint::Job(JobId(2)));
    assert_eq!(hint(&mut theirs).await, Hint::Job(JobId(2)));
    drop(stranger);
    assert_eq!(third.next().await, None);
}

#[tokio::test]
async fn who_does_not_listen_in_time_hears_that_something_was_missed() {
    let hub = Hub::default();
    let (one, other) = (hub.join(), hub.join());
    let mut slow = other.subscribe();
    for job in 0..10_000 {
        one.publish(Hint::Job(JobId(job)));
    }
    assert_eq!(slow.next().await, Some(Heard::Missed));
}
