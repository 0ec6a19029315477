//! What goes to standard error: warnings for a command, a structured log for a
//! server and a worker.

use std::{collections::BTreeMap, fmt as text, io};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        self, FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer,
        time::FormatTime,
    },
    registry::LookupSpan,
};

use crate::config::LogFormat;

/// For commands: warnings always, more when asked.
pub fn for_commands(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug,russh=info",
    };
    fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .init();
}

/// For a server or a worker: what happens to jobs and workers.
pub fn for_services(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => "info,sqlx=warn",
        1 => "debug,russh=info,sqlx=warn,hyper=info,h2=info",
        _ => "debug",
    };
    let log = fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(false).with_timer(Utc).init(),
        LogFormat::Json => log.fmt_fields(JsonFields).event_format(Json).init(),
    }
}

fn fmt() -> fmt::SubscriberBuilder {
    tracing_subscriber::fmt()
}

/// Times as the API has them, to the millisecond.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> text::Result {
        write!(writer, "{:.3}", Timestamp::now())
    }
}

/// One JSON object per line: `time`, `level`, `message`, the event's fields, and
/// those of the spans that it is in.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> text::Result {
        let mut line = Map::new();
        let meta = event.metadata();
        line.insert("time".into(), format!("{:.3}", Timestamp::now()).into());
        line.insert("level".into(), meta.level().as_str().to_lowercase().into());
        line.insert("target".into(), meta.target().into());
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.and_then(|fields| serde_json::from_str(fields).ok());
            if let Some(Value::Object(fields)) = fields {
                // The inner span's is stronger.
                for (name, value) in fields {
                    line.entry(name).or_insert(value);
                }
            }
        }
        let mut own = Collected::default();
        event.record(&mut own);
        line.extend(
            own.0
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// A span's fields as a JSON object.
struct JsonFields;

impl<'w> FormatFields<'w> for JsonFields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'w>,
        fields: R,
    ) -> text::Result {
        let mut collected = Collected::default();
        fields.record(&mut collected);
        write!(writer, "{}", json!(collected.0))
    }

    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> text::Result {
        let mut all: Map<String, Value> = serde_json::from_str(current).unwrap_or_default();
        let mut collected = Collected::default();
        fields.record(&mut collected);
        all.extend(
            collected
                .0
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        current.fields = Value::Object(all).to_string();
        Ok(())
    }
}

#[derive(Default)]
struct Collected(BTreeMap<&'static str, Value>);

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn text::Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value.into());
    }
}
