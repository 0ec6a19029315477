//! Pages that people look at.

use http::StatusCode;
use serde_json::json;

use super::harness::{ALL, Farm};

#[tokio::test]
async fn a_jobs_page_shows_it_without_letting_its_words_become_ours() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    let submit = "mutation($m: String!, $n: String) { submit(manifest: $m, note: $n, execute: false) { id } }";
    let evil = "<script>alert('x')</script>";
    let manifest = format!("# {evil}\nimage: debian/bookworm\ntasks:\n- one: \"{evil}\"\n");
    let variables = json!({ "m": manifest, "n": evil });
    let data = farm.ask(&token, submit, variables).await;
    let id = super::harness::id(&data["submit"]);
    let cancel = format!("mutation {{ cancel(jobId: {id}) {{ id }} }}");
    farm.ask(&token, &cancel, json!({})).await;
    let page = farm.get("", &format!("/~ann/job/{id}"), &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let html = page.text();
    assert!(!html.contains("<script"), "{html}");
    assert!(
        html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"),
        "{html}"
    );
    assert!(
        html.contains("cancelled") && html.contains("skipped"),
        "{html}"
    );
    let log = format!("/~ann/job/{id}/log/one");
    assert!(html.contains(&log), "{html}");
    let log = farm.get("", &log, &[]).await;
    assert_eq!(log.text(), "This task did not run.\n");
    let log = farm.get("", &format!("/~ann/job/{id}/log"), &[]).await;
    assert!(log.text().contains("cancelled"), "{}", log.text());
}

#[tokio::test]
async fn private_jobs_and_other_peoples_names_have_no_page() {
    let farm = Farm::new().await;
    let token = farm.person("ann", ALL).await;
    farm.person("bob", ALL).await;
    let private = farm
        .submit(&token, ", execute: false, visibility: PRIVATE")
        .await;
    let open = farm.submit(&token, ", execute: false").await;
    for path in [
        format!("/~ann/job/{private}"),
        format!("/~ann/job/{private}/log"),
        format!("/~ann/job/{private}/log/one"),
        format!("/~bob/job/{open}"),
        format!("/ann/job/{open}"),
        "/~ann/job/x".to_owned(),
        "/~ann/job/99".to_owned(),
    ] {
        let reply = farm.get(&token, &path, &[]).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn graphiql_comes_with_all_its_files_and_asks_no_other_host() {
    let farm = Farm::new().await;
    let page = farm.get("", "/graphql", &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("script-src 'self'") && !policy.contains("http"),
        "{policy}"
    );
    let html = page.text();
    assert!(!html.contains("://"), "{html}");
    let quoted = html.split('"').filter(|word| word.starts_with("/graphql/"));
    let files: Vec<&str> = quoted.collect();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        let reply = farm.get("", file, &[]).await;
        assert_eq!(reply.status, StatusCode::OK, "{file}");
        assert!(reply.body.len() > 500, "{file}");
    }
}
