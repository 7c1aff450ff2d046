//! Traces of `amends serve`: to an OpenTelemetry collector, if one is named.

use reqwest::Url;

use super::error::CliError;
use super::output::escape;
use super::settings::{TraceSettings, masked};
use crate::id::Namespace;
use crate::telemetry::Recorder;
use crate::telemetry::otlp::{self, Exporting, Options};

/// Where traces go. The other standard variables apply, too: see docs/traces.md.
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    /// Where an OpenTelemetry collector takes traces over HTTP, for example http://127.0.0.1:4318. Not set: none are sent
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,
    /// The share of sagas whose traces are sent, 0 to 1, where their callers have not decided [default: 1]
    #[arg(long, value_name = "SHARE", env = "OTEL_TRACES_SAMPLER_ARG", hide_env_values = true)]
    trace_ratio: Option<f64>,
}

/// A collector, and which traces are sent to it.
#[derive(Clone, Debug)]
pub struct Collector {
    url: Url,
    ratio: f64,
}

impl TraceArgs {
    /// Where traces are to be sent, if they are.
    ///
    /// # Errors
    /// When address or share make no sense.
    pub fn collector(self, settings: &TraceSettings) -> Result<Option<Collector>, CliError> {
        let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_off = said("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
            || said("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
        let endpoint = self.otlp_endpoint.filter(|url| !url.is_empty());
        let endpoint = endpoint.or_else(|| settings.endpoint.clone()).map(|url| otlp::traces_url(&url));
        let Some(url) = said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or(endpoint).filter(|_| !is_off) else {
            return Ok(None);
        };
        let ratio = self.trace_ratio.or(settings.ratio).unwrap_or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            return Err(CliError::usage(format!("{ratio} is no share of traces"))
                .help("give --trace-ratio a number from 0 (none) to 1 (all)"));
        }
        let parsed = Url::parse(&url).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|parsed| match parsed.scheme() {
            "http" | "https" => Ok(parsed),
            _ => Err("expected http:// or https://".to_owned()),
        });
        Ok(Some(Collector { url: parsed.map_err(|problem| wrong(&url, &problem))?, ratio }))
    }
}

impl Collector {
    /// Begins to send the traces of a namespace, which have a queue of their own.
    ///
    /// # Errors
    /// When the address makes no sense after all.
    pub fn start(&self, namespace: &Namespace) -> Result<(Recorder, Exporting), CliError> {
        let (url, namespace) = (self.url.to_string(), Some(namespace.to_string()));
        let options = Options { url, ratio: self.ratio, service: "amends".to_owned(), namespace };
        otlp::start(options).map_err(|problem| wrong(self.url.as_str(), &problem))
    }
}

fn wrong(url: &str, problem: &str) -> CliError {
    CliError::usage(format!("the collector's address `{}`: {problem}", escape(&masked(url))))
        .help("set --otlp-endpoint to for example http://127.0.0.1:4318")
}
