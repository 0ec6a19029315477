//! What jobs made, by HTTP.

use http::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::harness::{ALL, Farm, MANIFEST, id};

const BYTES: &[u8] = b"<script>alert(1)</script>";

/// A private or unlisted job with one artifact, and the artifact's path.
async fn made(farm: &Farm, token: &str, more: &str) -> String {
    let worker = farm.worker("w1").await;
    let manifest = format!("{MANIFEST}artifacts:\n- out/a b.html\n");
    let submit = format!("mutation($m: String!) {{ submit(manifest: $m{more}) {{ id }} }}");
    let data = farm.ask(token, &submit, json!({ "m": manifest })).await;
    let job = id(&data["submit"]);
    let fence = worker.take(job).await;
    let begun = format!("/worker/lease/{fence}/begun");
    worker.report(Method::POST, &begun, "").await;
    let digest = Sha256::digest(BYTES);
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let put = format!(
        "/worker/lease/{fence}/artifact?index=0&path=out%2Fa%20b.html&size={}&sha256={sha256}",
        BYTES.len()
    );
    let reply = worker.report(Method::PUT, &put, BYTES).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT, "{}", reply.text());
    let query =
        "query artifacts ($id: Int!) { job(id: $id) { artifacts { path size url sha256 } } }";
    let data = farm.ask(token, query, json!({ "id": job.0 })).await;
    let artifact = &data["job"]["artifacts"][0];
    assert_eq!(artifact["path"], "out/a b.html");
    assert_eq!(artifact["size"], BYTES.len());
    assert_eq!(artifact["sha256"], sha256);
    let url = artifact["url"].as_str().unwrap();
    url.strip_prefix(&farm.origin).unwrap().to_owned()
}

#[tokio::test]
async fn an_artifact_is_downloaded_whole_or_in_parts_and_no_browser_runs_it() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let path = made(&farm, &token, "").await;
    assert!(path.ends_with("/a%20b.html"), "{path}");
    let whole = farm.get("", &path, &[]).await;
    assert_eq!(
        (whole.status, whole.body.as_slice()),
        (StatusCode::OK, BYTES)
    );
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!(
        whole.header("content-disposition"),
        "attachment; filename*=UTF-8''a%20b.html"
    );
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let part = farm.get("", &path, &[("range", "bytes=1-6")]).await;
    assert_eq!(
        (part.status.as_u16(), part.text().as_str()),
        (206, "script")
    );
    assert_eq!(
        part.header("content-range"),
        format!("bytes 1-6/{}", BYTES.len())
    );
    let beyond = farm.get("", &path, &[("range", "bytes=999-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(
        beyond.header("content-range"),
        format!("bytes */{}", BYTES.len())
    );
    let other = path.replace("a%20b.html", "b.html");
    assert_eq!(
        farm.get("", &other, &[]).await.status,
        StatusCode::NOT_FOUND
    );
    let wrong = farm.get("kiln_u_wrong", &path, &[]).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_private_jobs_artifact_is_for_its_owner() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let bob = farm.person("bob", ALL).await;
    let path = made(&farm, &token, ", visibility: PRIVATE").await;
    assert_eq!(farm.get(&token, &path, &[]).await.status, StatusCode::OK);
    let none = farm.get("", "/artifacts/999/x", &[]).await;
    for other in ["", &bob] {
        let hidden = farm.get(other, &path, &[]).await;
        assert_eq!(
            (hidden.status, &hidden.body),
            (StatusCode::NOT_FOUND, &none.body)
        );
    }
}
