//! Requests and answers over reqwest.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, IF_MATCH, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::views::ProblemDocument;
use crate::client::{ClientError, Refusal};

/// How long one request may take, the answer included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A place that requests go to; or why there is none, told by the first call.
#[derive(Clone)]
pub(super) struct Connection {
    address: String,
    base: Result<(reqwest::Client, Url), String>,
    token: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the token.
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A request's body.
pub(super) enum Body {
    None,
    /// Content type and text.
    Text(&'static str, String),
}

impl Body {
    pub(super) fn json(value: &impl Serialize) -> Result<Self, ClientError> {
        let text = serde_json::to_string(value).map_err(ClientError::Encode)?;
        Ok(Self::Text("application/json", text))
    }
}

impl Connection {
    pub(super) fn new(base_url: &str, token: Option<&str>) -> Self {
        let base = parse(base_url).and_then(|url| Ok((http_client(&url, TIMEOUT)?, url)));
        let address = match &base {
            Ok((_, url)) => masked(url),
            Err(_) => base_url.rsplit('@').next().unwrap_or_default().to_owned(),
        };
        Self { address, base, token: token.map(Arc::from), namespace: None }
    }

    pub(super) fn within(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    pub(super) fn base_url(&self) -> &str {
        &self.address
    }

    /// Sends a request and reads the answer as JSON, with its status.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Body,
        if_revision: Option<u32>,
    ) -> Result<(u16, T), ClientError> {
        let (mut request, url) = self.request(method, path, query)?;
        if let Body::Text(kind, text) = body {
            request = request.header(CONTENT_TYPE, kind).body(text);
        }
        if let Some(revision) = if_revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        let (status, text) = self.answer(request, &url).await?;
        let value = serde_json::from_str(&text).map_err(|error| ClientError::Unexpected {
            url,
            status,
            problem: error.to_string(),
        })?;
        Ok((status, value))
    }

    /// Reads a path as text.
    pub(super) async fn text(&self, path: &[&str]) -> Result<String, ClientError> {
        let (request, url) = self.request(Method::GET, path, &[])?;
        Ok(self.answer(request, &url).await?.1)
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<(RequestBuilder, String), ClientError> {
        let setup = |problem: &str| ClientError::Setup { url: self.address.clone(), problem: problem.to_owned() };
        let (http, base) = self.base.as_ref().map_err(|problem| setup(problem))?;
        let mut url = base.clone();
        // An empty part would be lost, and with it the difference between a saga and the list of sagas.
        if path.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
            return Err(setup("a name or id in the path is empty or consists of dots"));
        }
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let told = masked(&url);
        let mut request = http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("amends-namespace", &**namespace);
        }
        Ok((request, told))
    }

    async fn answer(&self, request: RequestBuilder, url: &str) -> Result<(u16, String), ClientError> {
        let unreachable = |source: reqwest::Error| {
            let cause = if source.is_timeout() { "no answer in time".to_owned() } else { innermost(&source) };
            ClientError::Unreachable { url: url.to_owned(), cause, source }
        };
        let response = request.send().await.map_err(unreachable)?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok((status.as_u16(), text));
        }
        let (url, status) = (url.to_owned(), status.as_u16());
        match serde_json::from_str::<ProblemDocument>(&text) {
            Ok(problem) if !problem.code.is_empty() => {
                Err(ClientError::Refused(Box::new(Refusal { url, status, problem, retry_after })))
            }
            Ok(_) => Err(ClientError::Unexpected { url, status, problem: "a problem without a code".to_owned() }),
            Err(error) => Err(ClientError::Unexpected { url, status, problem: error.to_string() }),
        }
    }
}

fn parse(base_url: &str) -> Result<Url, String> {
    let url = Url::parse(base_url).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err("it must begin with http:// or https://".to_owned());
    }
    Ok(url)
}

/// A client that follows no redirects, so that the token goes nowhere else.
/// What asks at `url`, each time for as long as `timeout`, and follows nobody elsewhere.
pub(crate) fn http_client(url: &Url, timeout: Duration) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        if url.scheme() == "https" {
            return Err("https needs a rustls provider: install one at the start of the program, for example \
                        rustls::crypto::ring::default_provider().install_default()"
                .to_owned());
        }
        builder = builder.tls_backend_preconfigured(trusting_nobody()?);
    }
    builder.build().map_err(|error| innermost(&error))
}

/// reqwest panics without a process-wide rustls provider even where no TLS is spoken. Installing one is the program's
/// business, so plain http gets a provider of its own, which trusts no certificate at all.
fn trusting_nobody() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn masked(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails on an address with a host, and others were refused before.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The innermost cause is the one that says something: connection refused, name not known.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
