//! What a run works with: a schema or a folder of its own, queues of its own. Made at the start, removed at the end.

use std::path::Path;
use std::sync::Arc;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;

use super::workload::Names;
use crate::broker::amqp::{AmqpBroker, LapinBroker};
use crate::broker::in_process::InProcessBroker;
use crate::broker::{Broker, Topology};
use crate::cli::error::CliError;
use crate::cli::settings::masked;
use crate::cli::{Context, connect, output};
use crate::store::{Store, StoreHealth};

/// The place that a bench runs at.
pub(super) struct Site {
    pub(super) names: Names,
    pub(super) store: Arc<dyn Store>,
    /// With the schema that it made.
    pub(super) store_url: String,
    pub(super) broker: Messages,
    pub(super) broker_url: String,
    pub(super) health: StoreHealth,
    /// For the databases of participants, and for the store when it is a file.
    pub(super) folder: TempDir,
    /// The PostgreSQL schemas to drop, and where.
    schemas: Option<(String, Vec<String>)>,
}

/// The broker.
pub(super) enum Messages {
    Amqp {
        /// With the client that the coordinator has.
        own: Arc<AmqpBroker>,
        /// With lapin alone, for the second floor.
        lapin: Arc<LapinBroker>,
    },
    InProcess(InProcessBroker),
}

impl Messages {
    pub(super) fn shared(&self) -> Arc<dyn Broker> {
        match self {
            Self::Amqp { own, .. } => own.clone(),
            Self::InProcess(broker) => Arc::new(broker.clone()),
        }
    }
}

impl Site {
    /// Makes it.
    pub(super) async fn prepare(context: &Context) -> Result<Self, CliError> {
        let settings = &context.settings;
        let missing = |what: &str, for_example: &str| {
            CliError::usage(format!("the bench needs to be told which {what} to measure"))
                .help(format!("set --{what} or AMENDS_{}, for example {for_example}", what.to_uppercase()))
        };
        let store = settings.store.clone().ok_or_else(|| missing("store", "postgres://me@localhost/bench"))?;
        let broker_url = settings.broker.clone().ok_or_else(|| missing("broker", "amqp://localhost or in-process"))?;
        let id = crate::id::fresh_request_id().simple().to_string();
        // The end of such an id is random, its beginning the time.
        let names = Names::new(&format!("bench-{}", id.get(20..).unwrap_or(&id)));

        let broker = match broker_url.as_str() {
            "in-process" => Messages::InProcess(InProcessBroker::new()),
            url => Messages::Amqp {
                own: Arc::new(AmqpBroker::connect(url).await?),
                lapin: Arc::new(LapinBroker::connect_lazily(url)?),
            },
        };
        let (folder, store_url, schemas) = place(&store, &names).await?;
        let opened = connect::store(&store_url).await?;
        opened.migrate().await?;
        let health = opened.health().await?;
        let site = Self { names, store: opened, store_url, broker, broker_url, health, folder, schemas };
        site.broker.shared().declare(&site.topology()).await?;
        Ok(site)
    }

    /// Removes queues that only one bench needs.
    pub(super) async fn forget(&self, topology: &Topology) -> Result<(), CliError> {
        let queues: Vec<String> = topology.queues.iter().map(|queue| queue.name.clone()).collect();
        match &self.broker {
            Messages::Amqp { own, .. } => Ok(own.delete(&queues).await?),
            Messages::InProcess(_) => Ok(()),
        }
    }

    fn topology(&self) -> Topology {
        let mut topology = Topology::replies(&self.names.replies());
        for names in [&self.names, &self.names.with_lapin()] {
            topology.merge(Topology::replies(&names.floor_replies()));
            for participant in names.participants() {
                topology.merge(Topology::participant(&participant));
            }
        }
        topology
    }

    /// Whether everything runs in this process.
    pub(super) fn is_embedded(&self) -> bool {
        matches!(self.broker, Messages::InProcess(_))
    }

    /// Where participants keep what is theirs: another schema, or files in the folder.
    pub(super) fn services_url(&self) -> String {
        match &self.schemas {
            Some((url, schemas)) => in_schema(url, schemas.last().map_or("", String::as_str)),
            None => format!("sqlite://{}", self.folder.path().join("services.db").display()),
        }
    }

    /// Removes what was made. Tries everything before it says what did not work.
    pub(super) async fn remove(self) -> Result<(), CliError> {
        let mut problems = Vec::new();
        if let Messages::Amqp { own, lapin } = &self.broker {
            lapin.close().await;
            let queues: Vec<String> = self.topology().queues.into_iter().map(|queue| queue.name).collect();
            if let Err(error) = own.delete(&queues).await {
                problems.push(format!("queues {}.*: {error}", self.names.run));
            }
        }
        self.broker.shared().close().await;
        self.store.close().await;
        if let Some((url, schemas)) = &self.schemas {
            for schema in schemas {
                if let Err(error) = statement(url, format!("drop schema if exists \"{schema}\" cascade")).await {
                    problems.push(format!("schema {schema} of {}: {error}", masked(url)));
                }
            }
        }
        if let Err(error) = self.folder.close() {
            problems.push(error.to_string());
        }
        if problems.is_empty() {
            return Ok(());
        }
        output::note("what the bench made could not be removed:");
        Err(CliError::failed(problems.join("\n")).help("remove it by hand"))
    }
}

/// A folder on the disk that is measured, the store's URL, and for PostgreSQL the schemas that were made there.
async fn place(url: &str, names: &Names) -> Result<(TempDir, String, Option<(String, Vec<String>)>), CliError> {
    let prefix = format!("amends-{}-", names.run);
    let no_folder = |error: std::io::Error| CliError::failed(format!("no folder for the bench: {error}"));
    if let Some(file) = url.strip_prefix("sqlite://") {
        // Beside the file that was named, since it is its disk that counts; the file itself is left alone.
        let file = file.split('?').next().unwrap_or_default();
        let beside = Path::new(file).parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(beside).map_err(no_folder)?;
        let url = format!("sqlite://{}", folder.path().join("bench.db").display());
        return Ok((folder, url, None));
    }
    if !url.starts_with("postgres") {
        return Err(CliError::usage("the bench measures PostgreSQL and SQLite").help("set --store to one of them"));
    }
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(no_folder)?;
    let name = names.run.replace('-', "_");
    let schemas = vec![format!("amends_{name}"), format!("amends_{name}_services")];
    for schema in &schemas {
        statement(url, format!("create schema \"{schema}\"")).await.map_err(|error| {
            CliError::failed(format!("no schema for the bench in {}: {error}", masked(url)))
                .help("the user needs the right CREATE on the database")
        })?;
    }
    let own = in_schema(url, schemas.first().map_or("", String::as_str));
    Ok((folder, own, Some((url.to_owned(), schemas))))
}

/// The URL with everything found in `schema` alone.
fn in_schema(url: &str, schema: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}options[search_path]={schema}")
}

async fn statement(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    // The name is made of hexadecimal digits here, and an identifier cannot be a parameter.
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}
