//! `/~user/job/N`: a job as a plain page, without script, for who has the link.
//!
//! Nobody logs in here yet: private jobs have no page. The logs that it links to
//! are beside it, since a browser has no token to read `/query/log/…` with.

use std::fmt::Write as _;

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use kiln_core::{farm::JobId, job::TaskStatus};
use kiln_store::model::{Artifact, Job, Task};

use super::{answer, logs};
use crate::{
    app::{Actor, Error, Result, artifacts, jobs, logs::has_begun, permission::Wish, time, users},
    state::{self, Shared},
    urls,
};

/// Nothing but the page itself and its style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;\
padding:0 1rem;color:#222}h1{font-size:1.4rem}table{border-collapse:collapse}td,th{text-align:left;\
padding:.2rem 1rem .2rem 0;vertical-align:top}pre{background:#f4f4f4;padding:1rem;overflow:auto}\
.success{color:#17692b}.failed,.timeout{color:#a11}.running{color:#0b5394}";

/// A manifest is shown up to here, in bytes.
const SHOWN: usize = 64 << 10;

pub(super) async fn show(
    State(state): State<Shared>,
    Path((user, job)): Path<(String, String)>,
) -> Response {
    match page(&state, &user, &job).await {
        Ok(html) => html_answer(StatusCode::OK, html),
        Err(error) => failed(&error),
    }
}

pub(super) async fn job_log(
    State(state): State<Shared>,
    Path((user, job)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    log(state, (&user, &job), None, query, headers).await
}

pub(super) async fn task_log(
    State(state): State<Shared>,
    Path((user, job, task)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    log(state, (&user, &job), Some(task), query, headers).await
}

async fn log(
    state: Shared,
    (user, job): (&str, &str),
    task: Option<String>,
    query: Option<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let (job, _) = find(&state, user, job).await?;
    let asked = logs::Asked {
        actor: Actor::Nobody,
        token: None,
        job: job.id,
        task,
        wish: Wish::Page,
    };
    logs::serve(state, asked, query.as_deref(), &headers).await
}

/// The job, if it is that user's, and the user's name.
async fn find(state: &state::State, user: &str, job: &str) -> Result<(Job, String)> {
    let name = user.strip_prefix('~').ok_or(Error::Hidden("page"))?;
    let id = JobId(answer::number(job, "job")?);
    let job = jobs::find(state, &Actor::Nobody, id, Wish::Page).await?;
    let owner = users::name_of(state, &Actor::Nobody, job.owner).await?;
    if owner != name {
        return Err(Error::Hidden("job"));
    }
    Ok((job, owner))
}

async fn page(state: &state::State, user: &str, job: &str) -> Result<String> {
    let (job, owner) = find(state, user, job).await?;
    let tasks = jobs::tasks(state, &[job.id]).await?;
    let artifacts = jobs::artifacts(state, &[job.id]).await?;
    let waits = jobs::waits(state, job.id).await?;
    let mut html = head(&format!("Job {} · {}", job.id, state.config.site_name));
    let _ = facts(&mut html, &job, &owner, waits);
    let _ = task_list(&mut html, &state.config.origin, &job, &owner, &tasks);
    let _ = artifact_list(&mut html, &state.config.origin, &artifacts);
    let _ = manifest(&mut html, &job);
    html.push_str("</body></html>\n");
    Ok(html)
}

fn head(title: &str) -> String {
    let title = text(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>"
    )
}

fn facts(html: &mut String, job: &Job, owner: &str, waits: Option<String>) -> std::fmt::Result {
    let status = job.status;
    writeln!(
        html,
        "<h1>Job {} of ~{}: <span class=\"{status}\">{status}</span></h1>",
        job.id,
        text(owner)
    )?;
    if let Some(note) = &job.note {
        writeln!(html, "<p>{}</p>", text(note))?;
    }
    let mut rows = vec![
        ("image", job.requirements.image.clone()),
        ("submitted", time::written(job.created)),
    ];
    rows.extend(waits.map(|why| ("waits", why)));
    rows.extend(job.started.map(|at| ("started", time::written(at))));
    rows.extend(job.ended.map(|at| ("ended", time::written(at))));
    rows.extend(job.reason.clone().map(|why| ("because", why)));
    if !job.tags.is_empty() {
        rows.push(("tags", job.tags.join(", ")));
    }
    html.push_str("<table>");
    for (name, value) in rows {
        writeln!(html, "<tr><th>{name}</th><td>{}</td></tr>", text(&value))?;
    }
    html.push_str("</table>\n");
    Ok(())
}

fn task_list(
    html: &mut String,
    origin: &str,
    job: &Job,
    owner: &str,
    tasks: &[Task],
) -> std::fmt::Result {
    let page = text(&urls::job(origin, owner, job.id));
    html.push_str("<h2>Tasks</h2>\n<table>");
    if has_begun(job) {
        writeln!(
            html,
            "<tr><td>(preparation)</td><td></td><td><a href=\"{page}/log\">log</a></td></tr>"
        )?;
    }
    for task in tasks {
        let (name, status) = (text(&task.name), task.status);
        write!(
            html,
            "<tr><td>{name}</td><td class=\"{status}\">{status}</td><td>"
        )?;
        if status != TaskStatus::Pending {
            let segment = urls::escaped(&task.name);
            write!(html, "<a href=\"{page}/log/{segment}\">log</a>")?;
        }
        html.push_str("</td></tr>\n");
    }
    html.push_str("</table>\n");
    Ok(())
}

fn artifact_list(html: &mut String, origin: &str, made: &[Artifact]) -> std::fmt::Result {
    if made.is_empty() {
        return Ok(());
    }
    html.push_str("<h2>Artifacts</h2>\n<table>");
    for artifact in made {
        let (path, size) = (text(&artifact.path), artifact.size);
        let shown = if artifact.pruned {
            path
        } else {
            let url = urls::artifact(origin, artifact.id, artifacts::file_name(artifact));
            format!("<a href=\"{}\">{path}</a>", text(&url))
        };
        writeln!(
            html,
            "<tr><td>{shown}</td><td>{size} bytes</td><td><code>{}</code></td></tr>",
            text(&artifact.sha256)
        )?;
    }
    html.push_str("</table>\n");
    Ok(())
}

fn manifest(html: &mut String, job: &Job) -> std::fmt::Result {
    let whole = job.manifest.as_deref().unwrap_or_default();
    let end = whole.floor_char_boundary(SHOWN);
    let shown = text(&whole[..end]);
    let more = if end < whole.len() { "\n…" } else { "" };
    writeln!(html, "<h2>Manifest</h2>\n<pre>{shown}{more}</pre>")
}

fn failed(error: &Error) -> Response {
    if matches!(error, Error::Unauthenticated(_)) {
        return error_page(&Error::Hidden("page"));
    }
    error_page(error)
}

fn error_page(error: &Error) -> Response {
    let sentence = text(&error.to_string());
    let mut html = head("kiln");
    html.push_str(&format!("<h1>{sentence}</h1></body></html>\n"));
    html_answer(error.status(), html)
}

fn html_answer(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, Body::from(html)).into_response()
}

/// Text as HTML has it, in elements and in attributes.
fn text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}
