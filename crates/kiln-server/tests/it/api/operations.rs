//! The operations that existing clients send, word by word.

use http::StatusCode;
use kiln_core::job::{JobStatus, TaskStatus};
use serde_json::{Value, json};

use super::harness::{ALL, Farm, MANIFEST, id};

/// `hut`'s fragments, named like fields.
const SHOW: &str = "query job ($id: Int!) { job(id: $id) { id status note tags \
    log { fullURL } owner { canonicalName } tasks { ...tasks } group { ...group } } } \
    fragment tasks on Task { name status log { fullURL } } \
    fragment group on JobGroup { jobs { id status } }";

const SUBMIT: &str = "mutation submit ($manifest: String!, $tags: [String!], $note: String, \
    $visibility: Visibility, $secrets: Boolean) { submit(manifest: $manifest, tags: $tags, \
    note: $note, visibility: $visibility, secrets: $secrets) { id owner { canonicalName } } }";

#[tokio::test]
async fn huts_submit_needs_no_secrets_and_its_empty_tag_is_none() {
    let farm = Farm::new().await;
    let token = farm.person("ann", "JOBS:RW LOGS:RO PROFILE:RO").await;
    let variables = json!({ "manifest": MANIFEST, "tags": [""], "note": "",
        "visibility": "UNLISTED", "secrets": true });
    let data = farm.ask(&token, SUBMIT, variables).await;
    assert_eq!(data["submit"]["owner"]["canonicalName"], "~ann");
    let show = farm
        .ask(&token, SHOW, json!({ "id": id(&data["submit"]).0 }))
        .await;
    assert_eq!(show["job"]["tags"], json!([]));
    assert_eq!(show["job"]["note"], Value::Null);
    assert_eq!(show["job"]["status"], "QUEUED");
    assert_eq!(show["job"]["log"], Value::Null);
    assert_eq!(show["job"]["group"], Value::Null);
}

#[tokio::test]
async fn the_oldest_forms_of_submit_still_work() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    for (query, variables) in [
        (
            "mutation($manifest: String!, $note: String) { submit(manifest: $manifest, note: $note) { id } }",
            json!({ "manifest": MANIFEST, "note": "a note" }),
        ),
        (
            "mutation($manifest: String!, $tags: [String!], $note: String, $visibility: Visibility) \
             { submit(manifest: $manifest, tags: $tags, note: $note, visibility: $visibility) { id } }",
            json!({ "manifest": MANIFEST, "tags": null, "note": null, "visibility": "PUBLIC" }),
        ),
        (
            "mutation($manifest: String!, $note: String, $tags: [String!], $secrets: Boolean, \
             $visibility: Visibility) { submit(manifest: $manifest, note: $note, tags: $tags, \
             secrets: $secrets, visibility: $visibility) { id } }",
            json!({ "manifest": MANIFEST, "note": "n",
                "tags": ["repo", "commits", "main", ".build.yml"], "secrets": false,
                "visibility": "PRIVATE" }),
        ),
    ] {
        let data = farm.ask(&token, query, variables).await;
        assert!(data["submit"]["id"].is_i64(), "{data}");
    }
}

#[tokio::test]
async fn a_job_that_runs_has_logs_a_runner_and_a_worker() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let worker = farm.worker("w1").await;
    let job = farm.submit(&token, "").await;
    let fence = worker.take(job).await;
    let shown = farm.ask(&token, SHOW, json!({ "id": job.0 })).await;
    let origin = &farm.origin;
    assert_eq!(shown["job"]["status"], "RUNNING");
    assert_eq!(
        shown["job"]["log"]["fullURL"],
        format!("{origin}/query/log/{job}/log")
    );
    assert_eq!(shown["job"]["tasks"][0]["log"], Value::Null);
    farm.store.begun(worker.key(fence)).await.unwrap();
    let running = farm
        .store
        .set_task(worker.key(fence), "one", TaskStatus::Running);
    running.await.unwrap();
    let query = "query($id: Int!) { job(id: $id) { id runner worker image imageDigest waiting \
        reason attempts { number worker begun ended } tasks { name status log { fullURL } } } \
        version { settings { sshUser } } }";
    let data = farm.ask(&token, query, json!({ "id": job.0 })).await;
    assert_eq!(data["version"]["settings"]["sshUser"], "builds");
    let shown = &data["job"];
    assert_eq!(shown["runner"], "ssh.example.org");
    assert_eq!(shown["worker"], "w1");
    assert_eq!(shown["waiting"], Value::Null);
    assert_eq!(shown["attempts"][0]["worker"], "w1");
    assert_eq!(
        shown["tasks"][0]["log"]["fullURL"],
        format!("{origin}/query/log/{job}/one/log")
    );
    assert_eq!(shown["tasks"][1]["log"], Value::Null);
}

#[tokio::test]
async fn a_job_that_was_cancelled_before_it_ran_has_logs_for_all_that_ended() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let job = farm.submit(&token, ", execute: false").await;
    let cancel = "mutation cancel ($jobId: Int!) { cancel(jobId: $jobId) { id } }";
    let data = farm.ask(&token, cancel, json!({ "jobId": job.0 })).await;
    assert_eq!(id(&data["cancel"]), job);
    let shown = farm.ask(&token, SHOW, json!({ "id": job.0 })).await;
    assert_eq!(shown["job"]["status"], "CANCELLED");
    for task in shown["job"]["tasks"].as_array().unwrap() {
        assert_eq!(task["status"], "SKIPPED");
        let url = task["log"]["fullURL"].as_str().expect("a log");
        let path = url.strip_prefix(&farm.origin).unwrap();
        let log = farm.get(&token, path, &[]).await;
        assert_eq!(log.text(), "This task did not run.\n");
    }
    let again = farm.query(&token, cancel, json!({ "jobId": job.0 })).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text());
}

#[tokio::test]
async fn jobs_are_listed_by_pages_and_the_last_cursor_is_null() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    for _ in 0..27 {
        farm.submit(&token, ", execute: false, visibility: PUBLIC")
            .await;
    }
    let list = "query jobs ($cursor: Cursor) { jobs(cursor: $cursor) { results { id status \
        note tags tasks { name status } } cursor } }";
    let first = farm.ask(&token, list, json!({ "cursor": null })).await;
    assert_eq!(first["jobs"]["results"].as_array().unwrap().len(), 25);
    assert_eq!(first["jobs"]["results"][0]["tasks"][1]["name"], "two");
    let cursor = first["jobs"]["cursor"].clone();
    assert!(cursor.is_string());
    let second = farm.ask(&token, list, json!({ "cursor": cursor })).await;
    assert_eq!(second["jobs"]["results"].as_array().unwrap().len(), 2);
    assert_eq!(second["jobs"]["cursor"], Value::Null);

    let other = farm.person("bob", ALL).await;
    farm.submit(&token, ", execute: false, visibility: UNLISTED")
        .await;
    let by_name = "query jobsByUser ($username: String!, $cursor: Cursor) { \
        userByName(username: $username) { jobs(cursor: $cursor) { results { id } cursor } } }";
    let data = farm
        .ask(&other, by_name, json!({ "username": "ann" }))
        .await;
    let page = &data["userByName"]["jobs"];
    assert_eq!(
        page["results"],
        second_page(&first),
        "the unlisted one is not listed"
    );
}

/// The ids of a page's jobs.
fn second_page(page: &Value) -> Value {
    let jobs = page["jobs"]["results"].as_array().unwrap();
    jobs.iter().map(|job| json!({ "id": job["id"] })).collect()
}

#[tokio::test]
async fn start_update_and_resubmit_work_in_their_own_letter_case() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let job = farm.submit(&token, ", execute: false").await;
    let update = "mutation update ($jobId: Int!, $visibility: Visibility!) { \
        update(jobId: $jobId, visibility: $visibility) { id visibility } }";
    let data = farm
        .ask(
            &token,
            update,
            json!({ "jobId": job.0, "visibility": "PRIVATE" }),
        )
        .await;
    assert_eq!(data["update"]["visibility"], "PRIVATE");
    let start = "mutation start ($jobID: Int!) { start(jobID: $jobID) { id status waiting } }";
    let data = farm.ask(&token, start, json!({ "jobID": job.0 })).await;
    assert_eq!(data["start"]["status"], "QUEUED");
    assert!(
        data["start"]["waiting"]
            .as_str()
            .unwrap()
            .contains("no worker")
    );
    let old = "query($id: Int!) { job(id: $id) { manifest owner { canonicalName } visibility } }";
    let data = farm.ask(&token, old, json!({ "id": job.0 })).await;
    assert_eq!(data["job"]["manifest"], MANIFEST);
    let variables = json!({ "manifest": MANIFEST, "tags": null, "visibility": "PRIVATE" });
    farm.ask(&token, SUBMIT, variables).await;
}

#[tokio::test]
async fn hubs_group_of_pending_jobs_starts_with_its_triggers() {
    let farm = Farm::new().await;
    let token = farm.person("hub", ALL).await;
    let one = farm
        .submit(&token, ", execute: false, secrets: false")
        .await;
    let two = farm
        .submit(&token, ", execute: false, secrets: false")
        .await;
    let create = "mutation($jobIds: [Int!]!, $triggers: [TriggerInput!], $note: String) { \
        createGroup(jobIds: $jobIds, triggers: $triggers, note: $note) { id note \
        owner { canonicalName } jobs { id status } \
        triggers { condition ... on EmailTrigger { to inReplyTo } ... on WebhookTrigger { url } } } }";
    let variables = json!({ "jobIds": [one.0, two.0], "note": "patches", "triggers": [
        { "type": "EMAIL", "condition": "ALWAYS",
          "email": { "to": "List <list@example.org>", "inReplyTo": "<1@example.org>" } },
        { "type": "WEBHOOK", "condition": "FAILURE", "webhook": { "url": "https://example.org/" } },
    ] });
    let data = farm.ask(&token, create, variables).await;
    let group = &data["createGroup"];
    assert_eq!(group["jobs"][1]["status"], "QUEUED");
    assert_eq!(group["triggers"][0]["inReplyTo"], "<1@example.org>");
    assert_eq!(group["triggers"][1]["condition"], "FAILURE");
    let shown = farm.ask(&token, SHOW, json!({ "id": one.0 })).await;
    assert_eq!(shown["job"]["group"]["jobs"][1]["id"], two.0);

    // Whoever sees a job of it sees not where its owner is told.
    let other = farm.person("eve", ALL).await;
    let look = "query($id: Int!) { job(id: $id) { group { triggers { condition } } } }";
    for (token, count) in [(&token, 2), (&other, 0)] {
        let data = farm.ask(token, look, json!({ "id": one.0 })).await;
        let triggers = data["job"]["group"]["triggers"].as_array().unwrap();
        assert_eq!(triggers.len(), count);
    }

    let three = farm.submit(&token, ", execute: false").await;
    let wait = "mutation($jobIds: [Int!]!) { createGroup(jobIds: $jobIds, execute: false) { id } }";
    let data = farm.ask(&token, wait, json!({ "jobIds": [three.0] })).await;
    let start = "mutation($groupId: Int!) { startGroup(groupId: $groupId) { id jobs { status } } }";
    let group = json!({ "groupId": data["createGroup"]["id"] });
    let data = farm.ask(&token, start, group).await;
    assert_eq!(data["startGroup"]["jobs"][0]["status"], "QUEUED");
}

#[tokio::test]
async fn what_this_farm_has_not_yet_is_an_empty_page_or_says_so() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let secrets = "query secrets ($cursor: Cursor) { secrets(cursor: $cursor) { results { created \
        uuid name fromUser { canonicalName } __typename ... on SecretFile { path mode } } cursor } }";
    let data = farm.ask(&token, secrets, json!({})).await;
    assert_eq!(data["secrets"], json!({ "results": [], "cursor": null }));
    let webhooks =
        "query($cursor: Cursor) { userWebhooks(cursor: $cursor) { results { id url } cursor } }";
    let data = farm.ask(&token, webhooks, json!({})).await;
    assert_eq!(data["userWebhooks"]["results"], json!([]));
    for refused in [
        "mutation { createUserWebhook(config: { url: \"https://example.org\", events: [JOB_CREATED], query: \"{ version { major } }\" }) { id } }",
        "mutation { deleteUserWebhook(id: 1) { id } }",
        "mutation { shareSecret(uuid: \"u\", user: \"bob\") { uuid } }",
        "{ webhook { uuid } }",
    ] {
        let reply = farm.query(&token, refused, json!({})).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text());
    }
}

#[tokio::test]
async fn people_are_found_by_number_and_by_name() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let me = "{ me { id canonicalName username email created updated url location bio } }";
    let data = farm.ask(&token, me, json!({})).await;
    assert_eq!(data["me"]["email"], "ann@example.org");
    let created = data["me"]["created"].as_str().unwrap();
    assert_eq!(
        (created.len(), created.ends_with('Z')),
        (20, true),
        "{created}"
    );
    let query = "query($id: Int!) { userByID(id: $id) { username } userByName(username: \"~ann\") \
        { username } nobody: userByName(username: \"nobody\") { username } }";
    let data = farm
        .ask(&token, query, json!({ "id": data["me"]["id"] }))
        .await;
    assert_eq!(data["userByID"], data["userByName"]);
    assert_eq!(data["nobody"], Value::Null);
}

#[tokio::test]
async fn admins_see_the_queue_and_the_workers_and_can_pause_them() {
    let farm = Farm::new().await;
    let (ann, root) = (farm.person("ann", ALL).await, farm.admin("root", ALL).await);
    let _worker = farm.worker("w1").await;
    let pause = "mutation { pauseWorker(name: \"w1\", reason: \"disk\") { name paused } }";
    let data = farm.ask(&root, pause, json!({})).await;
    assert_eq!(data["pauseWorker"][0]["paused"], "disk");
    let job = farm.submit(&ann, "").await;
    let queue = "{ queue { job { id } owner reason } }";
    let data = farm.ask(&root, queue, json!({})).await;
    assert_eq!(data["queue"][0]["owner"], "~ann");
    let reason = data["queue"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("w1"), "{reason}");
    let bob = farm.person("bob", ALL).await;
    assert_eq!(farm.ask(&bob, queue, json!({})).await["queue"], json!([]));
    let workers = "{ workers { name session version labels images { name arch digest } slots \
        capacity mood reason shortOf paused runs } }";
    let data = farm.ask(&root, workers, json!({})).await;
    let worker = &data["workers"][0];
    assert_eq!(worker["mood"], "ready");
    assert_eq!(worker["labels"], json!(["ssd=yes"]));
    assert_eq!(worker["images"][0]["name"], "debian/bookworm");
    farm.ask(
        &root,
        "mutation { resumeWorker(name: \"w1\") { paused } }",
        json!({}),
    )
    .await;
    let hidden = farm
        .query(
            &root,
            "mutation { pauseWorker(name: \"w9\") { name } }",
            json!({}),
        )
        .await;
    assert_eq!(hidden.status, StatusCode::NOT_FOUND);
    assert!(job.0 > 0);
}

#[tokio::test]
async fn a_job_that_ended_says_how_and_what_it_was_made_of() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let worker = farm.worker("w1").await;
    let job = farm.submit(&token, "").await;
    let fence = worker.take(job).await;
    let (store, key) = (&farm.store, worker.key(fence));
    store.set_digest(key, "abc").await.unwrap();
    store.add_source(key, 0, "c0ffee").await.unwrap();
    store.begun(key).await.unwrap();
    let tasks = [
        ("one".to_owned(), TaskStatus::Failed),
        ("two".to_owned(), TaskStatus::Skipped),
    ];
    store
        .set_task(key, "one", TaskStatus::Running)
        .await
        .unwrap();
    let end = store.end(
        key,
        JobStatus::Failed,
        Some("the task `one` failed"),
        &tasks,
    );
    end.await.unwrap();
    let query = "query($id: Int!) { job(id: $id) { status reason imageDigest requirements started \
        ended sources { index commit } attempts { number ended reason } secrets { uuid } \
        tasks { status log { last128KiB } job { id } } } }";
    let data = farm.ask(&token, query, json!({ "id": job.0 })).await;
    let shown = &data["job"];
    assert_eq!(shown["status"], "FAILED");
    assert_eq!(shown["reason"], "the task `one` failed");
    assert_eq!(shown["imageDigest"], "abc");
    assert_eq!(
        shown["sources"][0],
        json!({ "index": 0, "commit": "c0ffee" })
    );
    assert_eq!(shown["requirements"], json!(["image=debian/bookworm"]));
    assert!(shown["attempts"][0]["ended"].is_string());
    assert_eq!(
        shown["tasks"][1]["log"]["last128KiB"],
        "This task did not run.\n"
    );
    assert_eq!(shown["tasks"][0]["job"]["id"], job.0);
    assert_eq!(shown["secrets"], Value::Null);
}
