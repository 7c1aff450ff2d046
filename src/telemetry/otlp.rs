//! Spans to an OpenTelemetry collector, as OTLP over HTTP with protobuf.
//!
//! The standard variables apply: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`. Of them, and of the crate that speaks the protocol, nothing else in this program knows.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::telemetry::{Kind, Recorder, Span, Value, channel};

/// Spans that wait to be sent, at most.
const QUEUE: usize = 16_384;
/// Spans in one request, at most.
const BATCH: usize = 512;
/// How long a batch that is not full waits for more.
const LINGER: Duration = Duration::from_millis(200);
/// How often a batch is offered to a collector that does not take it.
const TRIES: u32 = 5;
/// The wait after the first of them; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where traces are taken, for example `http://127.0.0.1:4318/v1/traces`: see [`traces_url`].
    pub url: String,
    /// Of traces that nobody decided about before, this share is recorded: 0 to 1.
    pub ratio: f64,
    /// The service's name, unless `OTEL_SERVICE_NAME` gives one.
    pub service: String,
    /// The namespace of all that is recorded, for the resource attribute `amends.namespace`. Left out: none is named.
    pub namespace: Option<String>,
}

/// The address of traces at a collector's address, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
pub fn traces_url(endpoint: &str) -> String {
    format!("{}/v1/traces", endpoint.trim_end_matches('/'))
}

/// Sends spans until told to stop.
#[derive(Debug)]
pub struct Exporting {
    /// Also when it is dropped: what is not asked to finish ends soon, and loses nothing that was sent.
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// Begins to send what the recorder takes. The collector need not be there. Call it inside a tokio runtime, in a program
/// that has a TLS provider.
///
/// # Errors
/// When the address is none.
pub fn start(options: Options) -> Result<(Recorder, Exporting), String> {
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(options.url)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let said = |variable: &str| std::env::var(variable).unwrap_or_default();
    let is_named = !said("OTEL_SERVICE_NAME").is_empty() || said("OTEL_RESOURCE_ATTRIBUTES").contains("service.name=");
    let resource = match is_named {
        true => Resource::builder(),
        false => Resource::builder().with_service_name(options.service),
    };
    let namespace = options.namespace.map(|namespace| KeyValue::new("amends.namespace", namespace));
    exporter.set_resource(&resource.with_attributes(namespace).build());
    let (recorder, spans) = channel(options.ratio, QUEUE);
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(exporter, recorder.clone(), spans, stop.clone()));
    Ok((recorder, Exporting { stop: stop.drop_guard(), task }))
}

impl Exporting {
    /// Sends what waits, for no longer than `deadline`, and ends.
    pub async fn finish(self, deadline: Duration) {
        let Self { stop, mut task } = self;
        drop(stop);
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            tracing::warn!("the collector did not take all spans before the stop");
            task.abort();
        }
    }
}

async fn run(
    exporter: opentelemetry_otlp::SpanExporter,
    recorder: Recorder,
    mut spans: mpsc::Receiver<Span>,
    stop: CancellationToken,
) {
    let scope = InstrumentationScope::builder("amends").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut batch = Vec::with_capacity(BATCH);
    let mut was_away = false;
    loop {
        let received = tokio::select! {
            biased;
            received = spans.recv_many(&mut batch, BATCH) => received,
            () = stop.cancelled() => 0,
        };
        if received == 0 {
            return;
        }
        let _ = tokio::time::timeout(LINGER, async {
            while batch.len() < BATCH && !stop.is_cancelled() {
                let room = BATCH - batch.len();
                tokio::select! {
                    () = stop.cancelled() => break,
                    more = spans.recv_many(&mut batch, room) => if more == 0 { break },
                }
            }
        })
        .await;
        let data: Vec<SpanData> = batch.drain(..).map(|span| exported(span, &scope)).collect();
        let sent = send(&exporter, &data, &stop).await;
        recorder.sent(data.len(), sent.is_ok());
        match sent {
            Ok(()) => was_away = false,
            // Once: it may be away for a long time.
            Err(error) if !was_away => {
                tracing::warn!(%error, "the collector does not take spans");
                was_away = true;
            }
            Err(_) => {}
        }
    }
}

async fn send(
    exporter: &opentelemetry_otlp::SpanExporter,
    data: &[SpanData],
    stop: &CancellationToken,
) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match exporter.export(data.to_vec()).await {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        };
        if tries == TRIES || stop.is_cancelled() {
            return Err(error);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => pause *= 2,
        }
    }
}

fn exported(span: Span, scope: &InstrumentationScope) -> SpanData {
    let Span { context, parent, kind, name, start, end, attributes, error } = span;
    let flags = if context.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let state = context.state.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from(context.trace_id), SpanId::from(context.span_id));
    SpanData {
        span_context: SpanContext::new(trace, span, flags, false, state),
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: false,
        span_kind: match kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: name.into(),
        start_time: SystemTime::from(start),
        end_time: SystemTime::from(end.max(start)),
        attributes: attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn attribute((name, value): (&'static str, Value)) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Int(number) => KeyValue::new(name, number),
    }
}
