//! The SDK for callers of a coordinator: start sagas, look at them, act on them, over HTTP.
//!
//! ```no_run
//! # async fn example() -> Result<(), amends::client::ClientError> {
//! use amends::client::{Client, views::StartBody};
//!
//! let client = Client::new("http://127.0.0.1:7070", None);
//! let input = serde_json::json!({ "orderId": "o-1", "lines": [], "total": 42 });
//! // Safe to repeat after any error: the key (here the definition's own) gives the same saga again.
//! let started = client.start(&StartBody::new("place-order", input)).await?;
//! let ended = client.watch(&started.saga.id, |saga| println!("{}", saga.state)).await?;
//! # let _ = ended;
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;
mod request;
pub mod views;
mod watch;

use reqwest::Method;

#[cfg(feature = "server")]
pub(crate) use connection::http_client;
use connection::{Body, Connection};
pub use error::{ClientError, Refusal};
pub use request::{Action, AuditQuery, OutboxQuery, SagaQuery};
use views::{
    AdviceView, AuditPage, BatchRequest, BatchResult, DefinitionList, DefinitionVersions, DefinitionView, HealthView,
    HistoryView, MigrateRequest, MigrationItem, OperateRequest, OutboxPage, OverviewView, ReasonRequest, SagaPage,
    SagaView, SignalBody, SignalResult, StartBody,
};

/// A coordinator's HTTP interface, as a caller uses it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisteredDefinition {
    /// The definition as it is registered.
    pub definition: DefinitionView,
    /// Whether it is new; otherwise it was registered before with the same content.
    pub is_new: bool,
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedSaga {
    /// The saga as it is now.
    pub saga: SagaView,
    /// Whether this start made it; otherwise its key had it already, started with equal input.
    pub is_new: bool,
}

impl Client {
    /// A client of the coordinator at `base_url`, for example `http://127.0.0.1:7070`. Nothing is sent yet; what is
    /// wrong with the address comes back as [`ClientError::Setup`] from the first call.
    ///
    /// `https` needs a rustls provider, which the program installs, not this library: for example
    /// `rustls::crypto::ring::default_provider().install_default()`.
    pub fn new(base_url: &str, token: Option<&str>) -> Self {
        Self { connection: Connection::new(base_url, token) }
    }

    /// The same within a namespace. A token that is for one namespace alone says it already; it is then only made sure
    /// that it is this one.
    ///
    /// Its calls fail with `NAMESPACE_UNKNOWN` where the server has no such namespace for the token.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { connection: self.connection.within(namespace) }
    }

    /// The coordinator's address, without user name and password.
    pub fn base_url(&self) -> &str {
        self.connection.base_url()
    }

    /// Registers a definition from its text, YAML or JSON.
    ///
    /// # Errors
    /// `DEFINITION_INVALID` with every error; `VERSION_IMMUTABLE` when the version has other content.
    pub async fn register(&self, source: &str) -> Result<RegisteredDefinition, ClientError> {
        let body = Body::Text("application/yaml", source.to_owned());
        let (status, definition) = self.connection.send(Method::POST, &["v1", "definitions"], &[], body, None).await?;
        Ok(RegisteredDefinition { definition, is_new: status == 201 })
    }

    /// Every version of every definition.
    ///
    /// # Errors
    /// When the coordinator cannot be reached or says no.
    pub async fn definitions(&self) -> Result<DefinitionList, ClientError> {
        self.get(&["v1", "definitions"], &[]).await
    }

    /// Every version of one definition.
    ///
    /// # Errors
    /// `DEFINITION_UNKNOWN`, with those there are.
    pub async fn definition_versions(&self, name: &str) -> Result<DefinitionVersions, ClientError> {
        self.get(&["v1", "definitions", name], &[]).await
    }

    /// One definition version.
    ///
    /// # Errors
    /// `DEFINITION_UNKNOWN` or `VERSION_UNKNOWN`, with those there are.
    pub async fn definition(&self, name: &str, version: u32) -> Result<DefinitionView, ClientError> {
        self.get(&["v1", "definitions", name, &version.to_string()], &[]).await
    }

    /// Stops new starts of a version, or allows them again; running sagas go on.
    ///
    /// # Errors
    /// `DEFINITION_UNKNOWN`, `VERSION_UNKNOWN`, `REASON_REQUIRED`, and others.
    pub async fn deprecate(
        &self,
        name: &str,
        version: u32,
        is_deprecated: bool,
        reason: &str,
    ) -> Result<DefinitionView, ClientError> {
        let word = if is_deprecated { "deprecate" } else { "undeprecate" };
        let body = Body::json(&ReasonRequest { reason: reason.to_owned() })?;
        let path = ["v1", "definitions", name, &version.to_string(), word];
        Ok(self.connection.send(Method::POST, &path, &[], body, None).await?.1)
    }

    /// What the recorded outcomes say about a version; about what a start without a version gets, when none is named.
    ///
    /// # Errors
    /// `DEFINITION_UNKNOWN` or `VERSION_UNKNOWN`, with those there are.
    pub async fn advice(&self, name: &str, version: Option<u32>) -> Result<AdviceView, ClientError> {
        let query: Vec<_> = version.map(|version| ("version", version.to_string())).into_iter().collect();
        self.get(&["v1", "definitions", name, "advice"], &query).await
    }

    /// Whether a saga could be moved to another version of its definition, and why not.
    ///
    /// # Errors
    /// `SAGA_UNKNOWN`, `VERSION_UNKNOWN`, `VERSION_DEPRECATED`.
    pub async fn migration(&self, id: &str, to: u32) -> Result<MigrationItem, ClientError> {
        self.get(&["v1", "sagas", id, "migration"], &[("to", to.to_string())]).await
    }

    /// Moves a saga to another version of its definition; returns the saga as it is then.
    ///
    /// # Errors
    /// `MIGRATION_REFUSED` with every reason, and as [`Client::migration`].
    pub async fn migrate(&self, id: &str, to: u32, reason: &str) -> Result<SagaView, ClientError> {
        let body = Body::json(&MigrateRequest { to, reason: reason.to_owned() })?;
        Ok(self.connection.send(Method::POST, &["v1", "sagas", id, "migrate"], &[], body, None).await?.1)
    }

    /// A drawing of one definition version, as SVG.
    ///
    /// # Errors
    /// `DEFINITION_UNKNOWN` or `VERSION_UNKNOWN`, with those there are.
    pub async fn graph(&self, name: &str, version: u32) -> Result<String, ClientError> {
        self.connection.text(&["v1", "definitions", name, &version.to_string(), "graph.svg"]).await
    }

    /// Starts a saga; returns once it is durable. Safe to repeat where the saga has a key.
    ///
    /// # Errors
    /// `KEY_CONFLICT` when the key has a saga with another input, `INPUT_INVALID` with every place, and others.
    pub async fn start(&self, start: &StartBody) -> Result<StartedSaga, ClientError> {
        let body = Body::json(start)?;
        let (status, saga) = self.connection.send(Method::POST, &["v1", "sagas"], &[], body, None).await?;
        Ok(StartedSaga { saga, is_new: status == 201 })
    }

    /// Starts up to 1,000 sagas in one go. One result per start, in order; one that fails does not stop the others.
    ///
    /// # Errors
    /// When the coordinator cannot be reached, or refuses the batch as a whole.
    pub async fn start_batch(&self, starts: Vec<StartBody>) -> Result<BatchResult, ClientError> {
        let body = Body::json(&BatchRequest { sagas: starts })?;
        Ok(self.connection.send(Method::POST, &["v1", "sagas", "batch"], &[], body, None).await?.1)
    }

    /// A page of the sagas that `query` asks for, newest first.
    ///
    /// # Errors
    /// When the coordinator cannot be reached or does not understand the query.
    pub async fn sagas(&self, query: &SagaQuery) -> Result<SagaPage, ClientError> {
        self.get(&["v1", "sagas"], &query.pairs()).await
    }

    /// One saga.
    ///
    /// # Errors
    /// `SAGA_UNKNOWN`.
    pub async fn saga(&self, id: &str) -> Result<SagaView, ClientError> {
        self.get(&["v1", "sagas", id], &[]).await
    }

    /// What happened to one saga, in order.
    ///
    /// # Errors
    /// `SAGA_UNKNOWN`.
    pub async fn history(&self, id: &str) -> Result<HistoryView, ClientError> {
        self.get(&["v1", "sagas", id, "history"], &[]).await
    }

    /// Does what an operator asks; returns the saga as it is then. With `if_revision` only if the saga has not moved
    /// since that revision was seen.
    ///
    /// # Errors
    /// `ACTION_NOT_ALLOWED` naming the state, `SAGA_MOVED`, `REASON_REQUIRED`, and others.
    pub async fn operate(
        &self,
        id: &str,
        action: Action,
        request: &OperateRequest,
        if_revision: Option<u32>,
    ) -> Result<SagaView, ClientError> {
        let path = ["v1", "sagas", id, action.as_str()];
        Ok(self.connection.send(Method::POST, &path, &[], Body::json(request)?, if_revision).await?.1)
    }

    /// Tells a saga of a signal; returns once it is durable. Safe to repeat: the first one counts.
    ///
    /// # Errors
    /// `SIGNAL_UNKNOWN` with those that the saga waits for, `ACTION_NOT_ALLOWED` when it comes too late, `SAGA_UNKNOWN`.
    pub async fn signal(&self, signal: &SignalBody) -> Result<SignalResult, ClientError> {
        Ok(self.connection.send(Method::POST, &["v1", "signals"], &[], Body::json(signal)?, None).await?.1)
    }

    /// Everything at a glance: sagas by state, stuck ones by cause, the last hour.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn overview(&self) -> Result<OverviewView, ClientError> {
        self.get(&["v1", "overview"], &[]).await
    }

    /// A page of the outbox, oldest saga first.
    ///
    /// # Errors
    /// When the coordinator cannot be reached or does not understand the query.
    pub async fn outbox(&self, query: &OutboxQuery) -> Result<OutboxPage, ClientError> {
        self.get(&["v1", "outbox"], &query.pairs()).await
    }

    /// A page of the audit log, newest first.
    ///
    /// # Errors
    /// When the coordinator cannot be reached or does not understand the query.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ClientError> {
        self.get(&["v1", "audit"], &query.pairs()).await
    }

    /// Whether the process answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn health(&self) -> Result<HealthView, ClientError> {
        self.get(&["healthz"], &[]).await
    }

    /// Whether the coordinator can do its work: store and broker answer, the loops run.
    ///
    /// # Errors
    /// `NOT_READY` with the reasons.
    pub async fn ready(&self) -> Result<HealthView, ClientError> {
        self.get(&["readyz"], &[]).await
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ClientError> {
        Ok(self.connection.send(Method::GET, path, query, Body::None, None).await?.1)
    }
}
