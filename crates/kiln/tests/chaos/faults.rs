//! The faults: how they are made, and taken away again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kiln_core::testing::history::Event;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    disk::Disk,
    farm::Farm,
    kinds::{Fault, Kind},
    link::{self, Way, Weather},
    process::{LEAP, Process, is_away},
};

/// How often it is looked whether a clock is wrong, and for how long at most, after the time
/// that it was to be: a worker says something at its next job.
const LOOK: Duration = Duration::from_millis(500);
const SEEN: Duration = Duration::from_secs(60);

/// Makes a fault when its time has come, and takes it away again. Whether it was one: that
/// there was something to be killed, and that a clock was seen to be wrong.
pub async fn make(farm: Arc<Farm>, fault: Fault, begin: Instant) -> (Fault, bool) {
    sleep_until(begin + fault.at).await;
    let number = fault.number;
    let what = format!("{:?} {} for {:?}", fault.kind, fault.place, fault.length);
    farm.record.say(Event::FaultBegan {
        fault: number,
        what,
        touches: fault.touches(&farm.shape),
    });
    let made = inflict(&farm, &fault).await;
    farm.record.say(Event::FaultEnded { fault: number });
    (fault, made)
}

async fn inflict(farm: &Arc<Farm>, fault: &Fault) -> bool {
    let length = fault.length;
    let worker = &farm.workers[fault.place % farm.workers.len()];
    let server = &farm.servers[fault.place % farm.servers.len()];
    match fault.kind {
        Kind::KillWorker => return kill(&worker.process, length).await,
        Kind::KillServer => return kill(&server.process, length).await,
        Kind::FreezeWorker => return freeze(&worker.process, length).await,
        Kind::FreezeServer => return freeze(&server.process, length).await,
        Kind::ClockOfWorker => return clock(&worker.process, None, fault).await,
        Kind::ClockOfServer => return clock(&server.process, Some(server.address), fault).await,
        Kind::DiskOfWorker => return fill(worker.disk.as_ref(), length).await,
        Kind::DiskOfS3 => return fill(farm.engines.s3_disk.as_ref(), length).await,
        Kind::DiskOfPostgres => {
            let filled = fill(farm.engines.postgres_disk.as_ref(), length).await;
            // It may have ended for that.
            farm.engines.postgres_away(false, Duration::ZERO).await;
            return filled;
        }
        Kind::StopPostgres => farm.engines.postgres_away(false, length).await,
        Kind::KillPostgres => farm.engines.postgres_away(true, length).await,
        Kind::StopBus => farm.engines.redis_away(length).await,
        Kind::StopS3 => farm.engines.s3_away(length).await,
        Kind::RollServers => {
            for server in &farm.servers {
                roll(farm, &server.process).await;
            }
        }
        Kind::RollWorker => roll(farm, &worker.process).await,
        _ => {
            let (ways, weather) = between(farm, fault);
            for way in &ways {
                way.set(weather);
            }
            sleep(length).await;
            for way in ways {
                way.set(Weather::Clear);
            }
        }
    }
    true
}

/// What is the matter between which parts.
fn between<'a>(farm: &'a Farm, fault: &Fault) -> (Vec<&'a Way>, Weather) {
    let worker = &farm.workers[fault.place % farm.workers.len()].link.ways;
    let server = &farm.servers[fault.place % farm.servers.len()];
    let clients = &farm.clients.ways[server.ways()];
    let (database, bus, s3) = (&server.database.ways, &server.bus.ways, &server.s3.ways);
    let one = usize::try_from(fault.amount % worker.len() as u64).expect("few");
    let one = &worker[one..=one];
    let slow = Weather::Slow(Duration::from_millis(50 + fault.amount % 1500));
    // Each transaction is some round trips, and nobody else writes meanwhile.
    let slower = Weather::Slow(Duration::from_millis(1 + fault.amount % 40));
    let all = fault.amount.is_multiple_of(2);
    let (ways, weather): (&[Way], Weather) = match fault.kind {
        Kind::CutWorker => (worker, Weather::Cut),
        Kind::HoleWorker => (worker, Weather::Hole),
        Kind::SlowWorker => (worker, slow),
        Kind::CutOneWay => (one, Weather::Cut),
        Kind::HoleOneWay => (one, Weather::Hole),
        Kind::SlowOneWay => (one, slow),
        Kind::CutClients => (clients, Weather::Cut),
        Kind::HoleClients => (clients, Weather::Hole),
        Kind::SlowClients => (clients, slow),
        Kind::CutDatabase => (database, Weather::Cut),
        Kind::HoleDatabase => (database, Weather::Hole),
        Kind::SlowDatabase => (database, slower),
        Kind::CutBus => (bus, Weather::Cut),
        Kind::HoleBus => (bus, Weather::Hole),
        Kind::SlowBus => (bus, slow),
        Kind::DeafBus => (bus, Weather::Deaf),
        Kind::CutS3 => (s3, Weather::Cut),
        Kind::HoleS3 => (s3, Weather::Hole),
        Kind::SlowS3 => (s3, slow),
        Kind::ErrorsOfS3 => (s3, Weather::Errors { all }),
        Kind::CutAll => return (farm.ways(), Weather::Cut),
        other => unreachable!("{other:?} is not between parts"),
    };
    (ways.iter().collect(), weather)
}

async fn kill(process: &Process, length: Duration) -> bool {
    process.runs().await;
    let killed = process.kill();
    sleep(length).await;
    process.up();
    killed
}

async fn freeze(process: &Process, length: Duration) -> bool {
    process.runs().await;
    let frozen = process.signal(Signal::STOP);
    sleep(length).await;
    process.signal(Signal::CONT);
    frozen
}

/// From ten minutes to three days forward or back, until the process was seen to have it: by
/// a line of its log, or by what a server says of the date.
async fn clock(process: &Process, server: Option<SocketAddr>, fault: &Fault) -> bool {
    let seconds = LEAP + i64::try_from(fault.amount % (3 * 24 * 3600)).expect("few");
    let back = fault.amount.is_multiple_of(2);
    let seconds = if back { -seconds } else { seconds };
    let said = process.said();
    process.put_clock(seconds);
    sleep(fault.length).await;
    let seen = async {
        loop {
            let date = match server {
                Some(address) => link::date(address).await,
                None => None,
            };
            if process.tells(said, seconds) || date.is_some_and(|date| is_away(date, seconds)) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    let seen = timeout(SEEN, seen).await.is_ok();
    process.put_clock(0);
    seen
}

async fn fill(disk: Option<&Disk>, length: Duration) -> bool {
    let Some(disk) = disk else {
        return false;
    };
    disk.fill();
    sleep(length).await;
    disk.free();
    true
}

/// A new version is started, as far as anybody else can see.
async fn roll(farm: &Farm, process: &Process) {
    if !process.roll().await {
        farm.record.say(Event::Left {
            what: format!("{} does not leave when asked to; it", process.name),
        });
    }
}
