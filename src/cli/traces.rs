//! Traces of `amends serve`: to an OpenTelemetry collector, if one is named.

use super::error::CliError;
use super::output::escape;
use super::settings::TraceSettings;
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

impl TraceArgs {
    /// Begins to send traces, if they are to be.
    ///
    /// # Errors
    /// When address or share make no sense.
    pub fn start(self, settings: &TraceSettings) -> Result<Option<(Recorder, Exporting)>, CliError> {
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
        let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let options = Options { url: url.clone(), ratio, service: "amends".to_owned() };
        let started = if is_http(&url) { otlp::start(options) } else { Err("expected http:// or https://".to_owned()) };
        started.map(Some).map_err(|problem| {
            CliError::usage(format!("the collector's address `{}`: {problem}", escape(&url)))
                .help("set --otlp-endpoint to for example http://127.0.0.1:4318")
        })
    }
}
