//! The backup of a running farm, brought up elsewhere while the old farm's workers are
//! still there.
//!
//! Jobs run on the dummy machine, whose guests see the test's own files.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kiln_objects::{S3Config, testing::S3};
use kiln_store::testing::Postgres;

use crate::harness::{self, Farm, Running};

/// At least this lies between the numbers of then and those of now.
const LEFT_OUT: u64 = 1_000_000;

/// A farm with two workers, in the middle of something.
struct Then {
    farm: Farm,
    /// Has a job.
    one: Running,
    /// Has none, and gets none yet.
    two: Running,
    /// Ended before the backup.
    ended: String,
    /// Runs since before it.
    running: String,
    /// Waits since before it.
    waiting: String,
    /// While it is there, jobs go on.
    hold: PathBuf,
}

/// Says something for as long as the file is there.
fn talks(hold: &Path) -> String {
    format!(
        "tasks:\n- talks: |\n    set +x\n    while [ -e {} ]; do echo talks; sleep 0.1; done\n    echo ends\n",
        hold.display()
    )
}

fn in_the_middle(farm: Farm) -> Then {
    let hold = farm.dir().join("hold");
    fs::write(&hold, "").expect("a file");
    let one = farm.dummy_worker("one");
    let ended = farm.job("tasks:\n- old: echo it was\n");
    farm.wait_for_end(&ended);
    let two = farm.dummy_worker("two");
    farm.admin(["worker", "pause", "two", "--reason", "later"])
        .expect_success();
    let running = farm.job(&talks(&hold));
    farm.wait_for_log(&running, "talks");
    let waiting = farm.job("tasks:\n- waits: echo it waited\n");
    Then {
        farm,
        one,
        two,
        ended,
        running,
        waiting,
        hold,
    }
}

impl Then {
    /// What the old farm does after the backup, and nobody will know: a job that waited
    /// ends, and one that was submitted begins. Then it is gone.
    fn goes_on_and_ends(&mut self) -> String {
        self.farm
            .admin(["worker", "resume", "two"])
            .expect_success();
        self.farm.wait_for_end(&self.waiting);
        let later = self.farm.job(&talks(&self.hold));
        self.farm.wait_for_log(&later, "talks");
        self.farm.kill();
        later
    }

    /// What must be true of a farm that was restored from the backup, where the old one's
    /// workers find it in the old one's place.
    fn is_brought_up_by(&self, now: &Farm, later: &str, old_log: &str) {
        assert_eq!(now.show(&self.ended)["status"], "SUCCESS");
        assert_eq!(now.log(&self.ended), old_log);
        // What began is never begun again.
        let failed = now.wait_for_end(&self.running);
        assert_eq!(failed["status"], "FAILED");
        assert!(failed.to_string().contains("backup"), "{failed:#}");
        // Both workers hear that their leases are none, and their guests go.
        for worker in [&self.one, &self.two] {
            worker.wait_for_stderr("is not this worker's any more");
        }
        now.client(["show", later]).expect_status(2);
        now.admin(["worker", "resume", "two"]).expect_success();
        // What waited waits again, and runs once more: that it did is known to nobody.
        let waited = now.wait_for_end(&self.waiting);
        assert_eq!(waited["status"], "SUCCESS");

        let new = now.job("tasks:\n- new: echo it is\n");
        assert!(
            new.parse::<u64>().expect("a number")
                > later.parse::<u64>().expect("a number") + LEFT_OUT / 2
        );
        assert_eq!(now.wait_for_end(&new)["status"], "SUCCESS");
        let log = now.log(&new);
        assert!(log.contains("it is") && !log.contains("talks"), "{log}");
        let before = now.log(&self.running);
        assert!(
            before.contains("talks") && !before.contains("ends"),
            "{before}"
        );
        assert_eq!(now.log(&self.ended), old_log);
    }
}

/// A farm that is none yet, where the old one was.
fn elsewhere(then: &Then) -> Farm {
    let now = Farm::new().inside(&[], then.farm.address());
    let token = fs::read_to_string(then.farm.dir().join("token")).expect("the token");
    now.secret("token", &token);
    now
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(copied.expect("cp").success());
}

#[test]
fn a_backup_of_a_running_farm_on_one_machine_is_brought_up_elsewhere() {
    let mut then = in_the_middle(Farm::start());
    let backup = then.farm.dir().join("backup");
    let objects = then.farm.data_dir().join("objects");
    copy(&objects, &backup.join("objects"));
    let database = backup.join("kiln.db").into_os_string();
    then.farm
        .admin([OsString::from("backup"), database.clone()])
        .expect_success();
    let old_log = then.farm.log(&then.ended);
    let later = then.goes_on_and_ends();
    // Late: with what the database's copy knows nothing of.
    copy(&objects, &backup.join("objects"));

    let mut now = elsewhere(&then);
    copy(&backup.join("objects"), &now.data_dir().join("objects"));
    now.admin([OsString::from("restore"), database])
        .expect_success()
        .expect_stderr("1 failed");
    now.go_on();
    then.is_brought_up_by(&now, &later, &old_log);
}

/// Words of a server whose objects are in this bucket.
fn in_bucket(farm: &Farm, bucket: &S3Config) -> Vec<OsString> {
    let settings = format!("s3-secret-key = {:?}\n", bucket.secret_key);
    let settings = farm.secret("serve.toml", &settings);
    let objects = format!("s3://{}/{}", bucket.bucket, bucket.prefix);
    let endpoint = bucket.endpoint.clone().expect("an endpoint");
    vec![
        "--objects".into(),
        objects.into(),
        "--s3-endpoint".into(),
        endpoint.into(),
        "--s3-access-key".into(),
        bucket.access_key.clone().into(),
        "--config".into(),
        settings.into_os_string(),
    ]
}

/// `deploy/backup` or `deploy/restore`, of this database and bucket.
fn script(name: &str, backup: &Path, database: &str, bucket: &S3Config) -> String {
    let endpoint = bucket.endpoint.clone().expect("an endpoint");
    let output = Command::new(harness::root().join("deploy").join(name))
        .arg(backup)
        .env("KILN", env!("CARGO_BIN_EXE_kiln"))
        .env("KILN_OWNER_DATABASE", database)
        .env("KILN_OBJECTS", format!("farm:{}", bucket.bucket))
        .env("RCLONE_CONFIG", "/dev/null")
        .env("RCLONE_CONFIG_FARM_TYPE", "s3")
        .env("RCLONE_CONFIG_FARM_PROVIDER", "Other")
        .env("RCLONE_CONFIG_FARM_ENDPOINT", endpoint)
        .env("RCLONE_CONFIG_FARM_REGION", &bucket.region)
        .env("RCLONE_CONFIG_FARM_ACCESS_KEY_ID", &bucket.access_key)
        .env("RCLONE_CONFIG_FARM_SECRET_ACCESS_KEY", &bucket.secret_key)
        .output()
        .expect("the script");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {}\n{said}", output.status);
    said
}

#[test]
fn a_backup_of_a_running_farm_on_postgresql_and_s3_is_brought_up_elsewhere() {
    let (old, new) = (Postgres::start(), Postgres::start());
    let (old, new) = (old.expect("PostgreSQL"), new.expect("PostgreSQL"));
    let s3 = S3::start().expect("an S3 server");
    let bucket = s3.bucket().expect("a bucket");
    let database = old.database().expect("a database");
    let farm = Farm::new().database(database.clone());
    let words = in_bucket(&farm, &bucket);
    let mut then = in_the_middle(farm.words(words).started());
    let backup = then.farm.dir().join("backup");
    script("backup", &backup, &database, &bucket);
    let old_log = then.farm.log(&then.ended);
    let later = then.goes_on_and_ends();
    // Nothing of the old farm is left.
    drop(old);
    s3.kill().expect("its end");

    let s3 = S3::start().expect("an S3 server");
    let bucket = s3.bucket().expect("a bucket");
    let database = new.database().expect("a database");
    let said = script("restore", &backup, &database, &bucket);
    assert!(said.contains("1 failed"), "{said}");
    let now = elsewhere(&then).database(database);
    let words = in_bucket(&now, &bucket);
    let mut now = now.words(words);
    now.go_on();
    then.is_brought_up_by(&now, &later, &old_log);
}
