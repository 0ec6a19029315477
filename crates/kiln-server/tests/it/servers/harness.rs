//! Two servers in this process, on one PostgreSQL and one bucket, and a bus.

use std::{path::PathBuf, sync::OnceLock};

use http::Request;
use kiln_bus::{
    Bus, Hub, Key, Status,
    testing::{Redis, Setup, dropping},
};
use kiln_core::farm::JobId;
use kiln_objects::testing::S3;
use kiln_store::{Store, testing::Postgres};
use kiln_wire::client::full;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::workers::harness::{Answer, Farm, LONG};

/// One for all tests: each has a database of its own.
fn postgres() -> &'static Postgres {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    POSTGRES.get_or_init(|| Postgres::start().unwrap())
}

/// One for all tests: each has a bucket of its own.
fn objects() -> &'static S3 {
    static OBJECTS: OnceLock<S3> = OnceLock::new();
    OBJECTS.get_or_init(|| S3::start().unwrap())
}

/// What hints go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    /// This process.
    Memory,
    /// A Redis.
    Redis,
    /// A bus that drops everything.
    Nothing,
}

/// Two servers of one farm.
pub(crate) struct Two {
    pub(crate) one: Farm,
    pub(crate) other: Farm,
    /// What hints go through, if it is one.
    pub(crate) redis: Option<Redis>,
    /// One more member of the bus.
    pub(crate) third: Bus,
    pub(crate) token: String,
    /// Where the bucket's objects are files.
    pub(crate) bucket: PathBuf,
}

impl Two {
    pub(crate) async fn on(between: Between) -> Self {
        let url = postgres().database().unwrap();
        let store = kiln_store::Config { url, migrate: true };
        let store = Store::open(&store).await.unwrap();
        let key = Key(store.bus_key().await.unwrap());
        let redis = (between == Between::Redis).then(|| Redis::start(Setup::default()).unwrap());
        let hub = Hub::default();
        let member = || match &redis {
            Some(redis) => Bus::redis(&redis.config(), key.clone()).unwrap(),
            None if between == Between::Memory => hub.join(),
            None => dropping(),
        };
        let (buses, third) = ([member(), member()], member());
        for bus in buses.iter().chain([&third]) {
            is(bus, true).await;
        }
        let owner = store.add_user("ann", "ann@example.org", false).await;
        let owner = owner.unwrap().id;
        let [first, second] = buses;
        let bucket = objects().bucket().unwrap();
        let directory = objects().directory(&bucket);
        let bucket = kiln_objects::Config::S3(bucket);
        let on = |config: &mut kiln_server::Config, bus| {
            config.objects = bucket.clone();
            config.bus = bus;
        };
        let one = Farm::on(store.clone(), owner, |config| on(config, first)).await;
        let other = Farm::on(store, owner, |config| on(config, second)).await;
        let token = one.person().await;
        Self {
            one,
            other,
            redis,
            third,
            token,
            bucket: directory,
        }
    }

    /// Asks a server.
    pub(crate) async fn query(&self, farm: &Farm, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let request = Request::post("/query")
            .header("content-type", "application/json")
            .body(full(body))
            .unwrap();
        let answer = Answer::to(&farm.client(Some(&self.token)), request).await;
        let answer: Value = serde_json::from_str(answer.unwrap().text()).unwrap();
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer["data"].clone()
    }

    /// Submits a job through a server.
    pub(crate) async fn submit(&self, farm: &Farm, manifest: &str) -> JobId {
        let submit = "mutation($m: String!) { submit(manifest: $m) { id } }";
        let data = self.query(farm, submit, json!({ "m": manifest })).await;
        JobId(data["submit"]["id"].as_i64().unwrap().try_into().unwrap())
    }

    /// Cancels a job through a server.
    pub(crate) async fn cancel(&self, farm: &Farm, job: JobId) {
        let cancel = "mutation($id: Int!) { cancel(jobId: $id) { id } }";
        self.query(farm, cancel, json!({ "id": job.0 })).await;
    }
}

/// Waits until a bus is connected, or is not.
pub(crate) async fn is(bus: &Bus, well: bool) {
    let waits = async {
        while (bus.status() == Status::Well) != well {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waits).await.expect("the bus becomes so");
}
