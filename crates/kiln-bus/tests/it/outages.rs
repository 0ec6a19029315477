//! A Redis that is away, refuses, or is written to by strangers.

use std::time::Duration;

use kiln_bus::{
    Bus, Config, Heard, Hint, Status,
    testing::{Redis, Setup},
};
use kiln_core::farm::JobId;
use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};

use crate::suite::{KEY, LONG, hint, two, until, well};

/// Why it is away.
async fn away(bus: &Bus, word: &str) -> String {
    let is = |status: &Status| matches!(status, Status::Away(why) if why.contains(word));
    match until(bus, is).await {
        Status::Away(why) => why,
        Status::Well => unreachable!("it is away"),
    }
}

#[tokio::test]
async fn a_bus_whose_redis_is_not_there_yet_connects_when_it_is() {
    let mut redis = Redis::start(Setup::default()).unwrap();
    redis.kill().unwrap();
    let bus = Bus::redis(&redis.config(), KEY).unwrap();
    away(&bus, "refused").await;
    bus.publish(Hint::Job(JobId(1)));
    redis.up().unwrap();
    well(&bus).await;
}

#[tokio::test]
async fn a_redis_that_was_killed_and_started_again_is_used_again_and_all_are_told_to_look() {
    let mut redis = Redis::start(Setup::default()).unwrap();
    let [(one, mut own), (other, mut theirs)] = two(&redis).await;
    one.publish(Hint::Job(JobId(1)));
    assert_eq!(hint(&mut theirs).await, Hint::Job(JobId(1)));
    redis.kill().unwrap();
    away(&one, "").await;
    away(&other, "").await;
    one.publish(Hint::Job(JobId(2)));
    redis.up().unwrap();
    well(&one).await;
    well(&other).await;
    // Nothing of what was said meanwhile comes late.
    assert_eq!(
        timeout(LONG, theirs.next()).await.unwrap(),
        Some(Heard::Missed)
    );
    one.publish(Hint::Job(JobId(3)));
    assert_eq!(hint(&mut theirs).await, Hint::Job(JobId(3)));
    other.publish(Hint::Job(JobId(4)));
    assert_eq!(hint(&mut own).await, Hint::Job(JobId(4)));
}

#[tokio::test]
async fn a_wrong_password_is_told_clearly_and_never_shown() {
    let redis = Redis::start(Setup {
        password: Some("open-sesame"),
        tls: false,
    })
    .unwrap();
    let mut config = redis.config();
    config.password = Some("open-barley".to_owned());
    let wrong = Bus::redis(&config, KEY).unwrap();
    let why = away(&wrong, "password").await;
    assert_eq!(why, "it refuses this user or password");
    config.url = format!("redis://localhost:{}", redis.port());
    config.password = None;
    let none = Bus::redis(&config, KEY).unwrap();
    let why = away(&none, "password").await;
    assert_eq!(why, "it wants a password, and none is given");
}

#[tokio::test]
async fn a_redis_with_another_certificate_is_not_spoken_to() {
    let tls = Setup {
        tls: true,
        password: None,
    };
    let (one, other) = (Redis::start(tls).unwrap(), Redis::start(tls).unwrap());
    let config = Config {
        ca: other.config().ca,
        ..one.config()
    };
    let bus = Bus::redis(&config, KEY).unwrap();
    away(&bus, "certificate").await;
}

#[tokio::test]
async fn publishing_neither_waits_nor_fails_however_redis_is() {
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let config = Config {
        url: format!("redis://127.0.0.1:{port}"),
        ..Config::default()
    };
    let bus = Bus::redis(&config, KEY).unwrap();
    for job in 0..100_000 {
        bus.publish(Hint::Job(JobId(job)));
    }
    let (mut socket, _) = timeout(LONG, silent.accept()).await.unwrap().unwrap();
    socket.read_u8().await.unwrap();
    away(&bus, "does not answer").await;
}

/// Somebody who may write to this Redis.
async fn stranger(redis: &Redis) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test]
async fn what_strangers_write_is_ignored_and_hints_still_come() {
    let redis = Redis::start(Setup::default()).unwrap();
    let [(one, _own), (_other, mut theirs)] = two(&redis).await;
    let mut stranger = stranger(&redis).await;
    let newer = [9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 1, 0, 0, 0];
    let garbage: [&[u8]; 5] = [b"", b"hello", &[1; 5], &newer, &[1; 200_000]];
    for message in garbage {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg("kiln.0").arg(message);
        publish.exec_async(&mut stranger).await.unwrap();
    }
    one.publish(Hint::Job(JobId(1)));
    assert_eq!(hint(&mut theirs).await, Hint::Job(JobId(1)));
}

#[tokio::test]
async fn a_flood_is_left_for_a_while() {
    let redis = Redis::start(Setup::default()).unwrap();
    let bus = Bus::redis(&redis.config(), KEY).unwrap();
    well(&bus).await;
    let mut stranger = stranger(&redis).await;
    let flooding = async {
        // Small ones: who does not keep up with many bytes is cut by Redis itself.
        let mut flood = redis::pipe();
        for _ in 0..20_000 {
            flood.cmd("PUBLISH").arg("kiln.0").arg("noise");
        }
        loop {
            let sent = flood.exec_async(&mut stranger);
            // What Redis does to who floods it is its own matter.
            if timeout(Duration::from_secs(5), sent).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    tokio::select! {
        never = flooding => match never {},
        why = away(&bus, "floods") => assert!(why.contains("messages"), "{why}"),
    }
}
