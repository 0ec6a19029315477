//! Who may do what with which token.

use async_graphql::parser::{
    parse_schema,
    types::{TypeKind, TypeSystemDefinition},
};
use http::StatusCode;
use kiln_core::farm::JobId;
use kiln_store::model::Voice;
use serde_json::{Value, json};

use super::harness::{ALL, Farm, hash};

const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;

#[tokio::test]
async fn nobody_comes_in_without_a_token_that_is_known() {
    let farm = Farm::new().await;
    farm.person("ann", ALL).await;
    for token in [
        "",
        "kiln_u_nobody",
        "kiln_w_x",
        "kiln_j_x",
        "x",
        &"k".repeat(4000),
    ] {
        for path in ["/query/log/1/log", "/query/log/1/one/log"] {
            let reply = farm.get(token, path, &[]).await;
            assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{token}");
            assert!(!reply.error().is_empty());
        }
        let reply = farm.query(token, "{ version { major } }", json!({})).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{token}");
        assert_eq!(
            reply.json()["errors"][0]["extensions"]["code"],
            "UNAUTHENTICATED"
        );
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    for value in ["token abc", "Bearer", "Bearer ", "Basic YTpi"] {
        let body = json!({ "query": "{ version { major } }" }).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("authorization", value),
        ];
        let request = farm.request(http::Method::POST, "/query", "", &headers, body);
        let reply = farm.reply(request).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{value}");
    }
}

#[tokio::test]
async fn a_token_that_was_taken_back_ends_at_once() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    farm.ask(&token, "{ me { id } }", json!({})).await;
    farm.store.revoke_user("ann").await.unwrap();
    let reply = farm.query(&token, "{ me { id } }", json!({})).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

/// An operation, what it needs, and whether it is refused to others than the job's owner.
struct Operation {
    query: &'static str,
    needs: &'static [&'static str],
}

const OPERATIONS: &[Operation] = &[
    Operation {
        query: "{ version { major settings { sshUser } } }",
        needs: &[],
    },
    Operation {
        query: "{ me { id } }",
        needs: &["PROFILE:RO"],
    },
    Operation {
        query: "{ userByID(id: 1) { id } }",
        needs: &["PROFILE:RO"],
    },
    Operation {
        query: "{ userByName(username: \"ann\") { id } }",
        needs: &["PROFILE:RO"],
    },
    Operation {
        query: "{ jobs { cursor } }",
        needs: &["JOBS:RO"],
    },
    Operation {
        query: "{ me { jobs { cursor } } }",
        needs: &["PROFILE:RO", "JOBS:RO"],
    },
    Operation {
        query: "{ job(id: 1) { id tasks { id } artifacts { id } } }",
        needs: &["JOBS:RO"],
    },
    Operation {
        query: "{ job(id: 1) { owner { id } } }",
        needs: &["JOBS:RO", "PROFILE:RO"],
    },
    Operation {
        query: "{ job(id: 1) { log { fullURL } } }",
        needs: &["JOBS:RO", "LOGS:RO"],
    },
    Operation {
        query: "{ job(id: 1) { tasks { log { fullURL } } } }",
        needs: &["JOBS:RO", "LOGS:RO"],
    },
    Operation {
        query: "{ job(id: 1) { secrets { id } } }",
        needs: &["JOBS:RO", "SECRETS:RO"],
    },
    Operation {
        query: "{ secrets { cursor } }",
        needs: &["SECRETS:RO"],
    },
    Operation {
        query: "{ userWebhooks { cursor } }",
        needs: &[],
    },
    Operation {
        query: "{ userWebhook(id: 1) { id } }",
        needs: &[],
    },
    Operation {
        query: "{ queue { reason } }",
        needs: &["JOBS:RO"],
    },
    Operation {
        query: "mutation { submit(manifest: \"image: a/b\\ntasks: [{a: b}]\") { id } }",
        needs: &["JOBS:RW"],
    },
    Operation {
        query: "mutation { start(jobID: 1) { id } }",
        needs: &["JOBS:RW"],
    },
    Operation {
        query: "mutation { cancel(jobId: 1) { id } }",
        needs: &["JOBS:RW"],
    },
    Operation {
        query: "mutation { update(jobId: 1, visibility: UNLISTED) { id } }",
        needs: &["JOBS:RW"],
    },
    Operation {
        query: "mutation { createGroup(jobIds: [1]) { id } }",
        needs: &["JOBS:RW"],
    },
    Operation {
        query: "mutation { startGroup(groupId: 1) { id } }",
        needs: &["JOBS:RW"],
    },
    Operation {
        query: "mutation { shareSecret(uuid: \"\", user: \"\") { id } }",
        needs: &["SECRETS:RW"],
    },
];

#[tokio::test]
async fn each_operation_needs_its_grants_and_no_others() {
    let farm = Farm::new().await;
    let all = farm.person("ann", ALL).await;
    let ann = farm.store.user_by_name("ann").await.unwrap().unwrap().id;
    farm.submit(&all, ", execute: false").await;
    for Operation { query, needs } in OPERATIONS {
        for missing in *needs {
            // All but the one that is missing: reading only, where it is writing.
            let scope = missing.split(':').next().unwrap();
            let others = ALL.split(' ').filter(|grant| !grant.starts_with(scope));
            let mut grants: Vec<String> = others.map(str::to_owned).collect();
            if missing.ends_with("RW") {
                grants.push(format!("{scope}:RO"));
            }
            let grants = grants.join(" ");
            let token = format!("kiln_u_{}", hex(query, &grants));
            farm.known(ann, &token, &grants).await;
            let reply = farm.query(&token, query, json!({})).await;
            assert_eq!(
                reply.status,
                FORBIDDEN,
                "{query} with {grants}: {}",
                reply.text()
            );
            let error = &reply.json()["errors"][0];
            assert_eq!(
                error["extensions"]["details"]["missing"], *missing,
                "{error}"
            );
        }
        let grants = if needs.is_empty() {
            "LOGS:RO".to_owned()
        } else {
            needs.join(" ")
        };
        let token = format!("kiln_u_{}", hex(query, &grants));
        farm.known(ann, &token, &grants).await;
        let reply = farm.query(&token, query, json!({})).await;
        assert!(
            ![FORBIDDEN, StatusCode::UNAUTHORIZED].contains(&reply.status),
            "{query} with {grants}: {}",
            reply.text()
        );
    }
}

/// A token's end that differs for each of these.
fn hex(query: &str, grants: &str) -> String {
    let hash = hash(&format!("{query} {grants}")).0;
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn every_field_that_the_schema_marks_for_workers_refuses_every_token() {
    let farm = Farm::new().await;
    let tokens = [farm.person("ann", ALL).await, farm.admin("root", ALL).await];
    for token in &tokens {
        for query in [
            "mutation { claim(jobId: 1) { id } }",
            "mutation { updateJob(jobId: 1, status: SUCCESS) { id } }",
            "mutation { updateTask(taskId: 1, status: SUCCESS) { id } }",
            "mutation { deleteUser }",
        ] {
            let reply = farm.query(token, query, json!({})).await;
            assert_eq!(reply.status, FORBIDDEN, "{query}: {}", reply.text());
        }
        let reply = farm.reply(upload(&farm, token)).await;
        assert_eq!(reply.status, FORBIDDEN, "{}", reply.text());
    }
    let marked = marked(&["worker", "internal"]);
    let here = [
        "claim",
        "updateJob",
        "updateTask",
        "createArtifact",
        "deleteUser",
    ];
    assert_eq!(marked, here, "each is tried above");
}

/// A GraphQL multipart request.
fn upload(farm: &Farm, token: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let query =
        "mutation($f: File!) { createArtifact(jobId: 1, path: \"p\", contents: $f) { id } }";
    let operations = json!({ "query": query, "variables": { "f": null } });
    let part = |name: &str, more: &str, body: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{body}\r\n")
    };
    let body = [
        part("operations", "", &operations.to_string()),
        part("map", "", "{\"0\": [\"variables.f\"]}"),
        part("0", "; filename=\"a\"", "bytes"),
        "--b--\r\n".to_owned(),
    ];
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    farm.request(http::Method::POST, "/query", token, &headers, body.concat())
}

/// The mutations with one of these directives.
fn marked(directives: &[&str]) -> Vec<String> {
    let document = parse_schema(kiln_server::sdl()).unwrap();
    let mut marked = Vec::new();
    for definition in document.definitions {
        let TypeSystemDefinition::Type(definition) = definition else {
            continue;
        };
        let TypeKind::Object(object) = definition.node.kind else {
            continue;
        };
        if definition.node.name.node != "Mutation" {
            continue;
        }
        for field in object.fields {
            let has = |name: &str| directives.contains(&name);
            if field
                .node
                .directives
                .iter()
                .any(|found| has(&found.node.name.node))
            {
                marked.push(field.node.name.node.to_string());
            }
        }
    }
    marked
}

#[tokio::test]
async fn what_is_not_for_somebody_looks_as_if_it_were_not_there() {
    let farm = Farm::new().await;
    let (ann, bob) = (farm.person("ann", ALL).await, farm.person("bob", ALL).await);
    let root = farm.admin("root", ALL).await;
    let private = farm
        .submit(&ann, ", execute: false, visibility: PRIVATE")
        .await;
    let unlisted = farm.submit(&ann, ", execute: false").await;
    let read = "query($id: Int!) { job(id: $id) { id } }";
    let job = |data: &Value| data["job"]["id"].as_i64();
    for (token, id, seen) in [
        (&bob, private, false),
        (&bob, JobId(9999), false),
        (&bob, JobId(-1), false),
        (&bob, unlisted, true),
        (&ann, private, true),
        (&root, private, true),
    ] {
        let data = farm.ask(token, read, json!({ "id": id.0 })).await;
        assert_eq!(job(&data).is_some(), seen, "{id}");
    }
    for query in [
        "mutation($id: Int!) { start(jobID: $id) { id } }",
        "mutation($id: Int!) { cancel(jobId: $id) { id } }",
        "mutation($id: Int!) { update(jobId: $id, visibility: PUBLIC) { id } }",
        "mutation($id: Int!) { createGroup(jobIds: [$id]) { id } }",
    ] {
        let mut said = Vec::new();
        for id in [private, unlisted, JobId(9999)] {
            let reply = farm.query(&bob, query, json!({ "id": id.0 })).await;
            assert_eq!(
                reply.status,
                StatusCode::NOT_FOUND,
                "{query}: {}",
                reply.text()
            );
            said.push(reply.error());
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
    }
    for path in ["log", "one/log", "nosuch/log"] {
        let there = farm
            .get(&bob, &format!("/query/log/{private}/{path}"), &[])
            .await;
        let not = farm
            .get(&bob, &format!("/query/log/9999/{path}"), &[])
            .await;
        assert_eq!((there.status, there.body), (not.status, not.body));
    }
    let secrets = "query($id: Int!) { job(id: $id) { secrets { id } } }";
    let reply = farm
        .query(&root, secrets, json!({ "id": unlisted.0 }))
        .await;
    assert!(
        reply.error().contains("no such job"),
        "an admin opens no secrets"
    );
}

#[tokio::test]
async fn a_jobs_token_reads_that_job_while_it_runs_and_nothing_else() {
    let farm = Farm::new().await;
    let ann = farm.person("ann", ALL).await;
    let worker = farm.worker("w1").await;
    let other = farm
        .submit(&ann, ", execute: false, visibility: PUBLIC")
        .await;
    let job = farm.submit(&ann, ", visibility: PRIVATE").await;
    let fence = worker.take(job).await;
    let token = "kiln_j_one";
    farm.store
        .set_offers_token(fence, hash(token), Voice(0))
        .await
        .unwrap();
    let read = "query($id: Int!) { job(id: $id) { id status tasks { name log { fullURL } } \
        log { fullURL } artifacts { url } } version { major } }";
    let data = farm.ask(token, read, json!({ "id": job.0 })).await;
    assert_eq!(data["job"]["status"], "RUNNING");
    let log = farm.get(token, &format!("/query/log/{job}/log"), &[]).await;
    assert_eq!(log.status, StatusCode::OK);
    let data = farm.ask(token, read, json!({ "id": other.0 })).await;
    assert_eq!(data["job"], Value::Null);
    let log = farm
        .get(token, &format!("/query/log/{other}/log"), &[])
        .await;
    assert_eq!(log.status, StatusCode::NOT_FOUND);
    for query in [
        "{ me { id } }",
        "{ jobs { cursor } }",
        "{ secrets { cursor } }",
        "{ userWebhooks { cursor } }",
        "{ queue { reason } }",
        "{ workers { name } }",
        "mutation { submit(manifest: \"image: a/b\\ntasks: [{a: b}]\") { id } }",
        "mutation { cancel(jobId: 2) { id } }",
        "mutation { pauseWorker(name: \"w1\") { name } }",
    ] {
        let reply = farm.query(token, query, json!({})).await;
        assert_eq!(reply.status, FORBIDDEN, "{query}: {}", reply.text());
    }
    let cancel = "mutation($id: Int!) { cancel(jobId: $id) { id } }";
    farm.ask(&ann, cancel, json!({ "id": job.0 })).await;
    let reply = farm.query(token, "{ version { major } }", json!({})).await;
    assert_eq!(
        reply.status,
        StatusCode::UNAUTHORIZED,
        "it ends with the lease"
    );
}

#[tokio::test]
async fn workers_are_for_admins() {
    let farm = Farm::new().await;
    let ann = farm.person("ann", ALL).await;
    let weak = farm.admin("root", "PROFILE:RO").await;
    for query in [
        "{ workers { name } }",
        "mutation { pauseWorker(name: \"w\") { name } }",
        "mutation { resumeWorker(name: \"w\") { name } }",
    ] {
        for token in [&ann, &weak] {
            let reply = farm.query(token, query, json!({})).await;
            assert_eq!(reply.status, FORBIDDEN, "{query}");
        }
    }
}

#[tokio::test]
async fn a_worker_token_can_do_nothing_but_work() {
    let farm = Farm::new().await;
    let _worker = farm.worker("w1").await;
    let reply = farm
        .query("kiln_w_w1", "{ version { major } }", json!({}))
        .await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert!(reply.error().contains("nothing but work"));
    let ann = farm.person("ann", ALL).await;
    let reply = farm.get(&ann, "/worker/connect", &[]).await;
    assert!(reply.status.is_client_error(), "{}", reply.status);
}
