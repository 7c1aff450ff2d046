//! `amends demo`: orders, trips and sign-ups over eight services, eight planned faults, and a coordinator that is killed
//! in the middle. Everything lives in a temporary folder and is gone afterwards.
//!
//! What is shown is the real thing: the shipped definitions, the real coordinator, SQLite on disk, the in-process broker
//! and the participant SDK. `plan` says who wants what and what goes wrong; `services`, `travel` and `club` are the participants;
//! `progress` and `report` tell of it.

mod club;
mod plan;
mod progress;
mod report;
mod services;
mod travel;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::error::{CliError, Exit};
use super::{Context, connect, output};
use crate::broker::Broker;
use crate::clock::Stopwatch;
use crate::coordinator::{Coordinator, CoordinatorOptions, Operate, OperatorAction, Start, StartOutcome};
use crate::definition::Definition;
use crate::id::SagaId;
use crate::payload::Payload;
use crate::saga::{Phase, Saga, SagaState, StepState, StepStatus};
use crate::store::Store;
use plan::{CASES, Fault, Faults};
use progress::Progress;
use services::Company;

/// The sagas that the demo shows: the shipped definitions, as they are.
const SHIPPED: [&str; 6] = [
    include_str!("../../../sagas/place-order.yaml"),
    include_str!("../../../sagas/book-trip.yaml"),
    include_str!("../../../sagas/loyalty-signup.yaml"),
    include_str!("../../../sagas/fulfil-order.yaml"),
    include_str!("../../../sagas/business-trip.yaml"),
    include_str!("../../../sagas/join-club.yaml"),
];
/// How often the stored sagas are looked at.
const LOOK: Duration = Duration::from_millis(40);
/// The demo ends within seconds; after so long something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `amends demo`: none.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Plays it. Exit code 1 when anything is not as it should be.
pub async fn run(_: Args, context: &Context) -> Result<Exit, CliError> {
    let no_folder = |error: std::io::Error| {
        CliError::failed(format!("no temporary folder: {error}")).help("set TMPDIR to a folder that can be written to")
    };
    let folder = tempfile::Builder::new().prefix("amends-demo-").tempdir().map_err(no_folder)?;
    let played = tokio::select! {
        played = tokio::time::timeout(PATIENCE, play(folder.path(), context)) => match played {
            Ok(played) => played,
            Err(_) => Err(CliError::failed(format!("the demo has not ended within {} s", PATIENCE.as_secs()))
                .help("run it again on a less busy machine; if it stays so, please report it")),
        },
        () = interrupted() => Err(CliError::failed("the demo was stopped; nothing is left behind")),
    };
    folder.close().map_err(no_folder)?;
    played
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// A coordinator with what it runs on.
struct Office {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    coordinator: Coordinator,
}

impl Office {
    async fn open(folder: &Path) -> Result<Self, CliError> {
        let store = connect::store(&format!("sqlite://{}", folder.join("amends.db").display())).await?;
        store.migrate().await?;
        let broker = connect::broker("in-process").await?;
        let coordinator = Coordinator::launch(store.clone(), broker.clone(), CoordinatorOptions::default()).await?;
        Ok(Self { store, broker, coordinator })
    }

    async fn saga(&self, id: SagaId) -> Result<Saga, CliError> {
        match self.store.saga(id).await? {
            Some(record) => Ok(record.saga),
            None => Err(CliError::failed(format!("saga {id} is lost"))),
        }
    }
}

async fn play(folder: &Path, context: &Context) -> Result<Exit, CliError> {
    let watch = Stopwatch::start();
    let faults = Arc::new(Faults::default());
    let company = Company::found(folder, faults.clone()).await?;
    let mut progress = Progress::new();
    progress.say("MusicCorp sells records, books trips to concerts and has a club for its customers. That takes eight");
    progress
        .say("services, each with its own database: orders, payments, warehouse, airline, hotel, cars, loyalty, mail.");
    progress.say("Nine orders, four trips and four sign-ups come in; ten of them meet trouble.\n");

    let office = Office::open(folder).await?;
    let mut definitions = Vec::new();
    for source in SHIPPED {
        definitions.push(office.coordinator.register(source, "demo").await?.definition);
    }
    let at_work = company.open(&office.broker)?;
    let ids = start_all(&office.coordinator).await?;
    tokio::select! {
        () = faults.somebody_waits() => {}
        stopped = watch_all(&office, &definitions, &ids, &mut progress, |_| false) => stopped?,
    }

    // As a power cut would have it: the coordinator first, so that what the services answer from here on is lost.
    office.coordinator.kill();
    faults.let_through();
    at_work.stop().await?;
    office.broker.close().await;
    office.store.close().await;
    drop(office);
    progress.say(
        "\n  The coordinator is killed while the bank works on order-6. Its memory is gone, and so are the broker",
    );
    progress.say("  and every message in it. What is left is a SQLite file.\n");

    let office = Office::open(folder).await?;
    let pending = office.store.pending(None, 1_000).await?.len();
    progress.say(&format!("  A new coordinator reads the file: {pending} commands are PENDING, and are sent again.\n"));
    let at_work = company.open(&office.broker)?;
    watch_all(&office, &definitions, &ids, &mut progress, all_still).await?;
    step_in(&office, &ids, &mut progress).await?;
    watch_all(&office, &definitions, &ids, &mut progress, |sagas| sagas.iter().all(|saga| saga.state.is_terminal()))
        .await?;

    let mut rows = Vec::new();
    for (case, &id) in CASES.iter().zip(&ids) {
        let Some(record) = office.store.saga(id).await? else { continue };
        let Some(definition) = definition_of(&definitions, &record.saga) else { continue };
        let definition = &*definition;
        let history = office.store.history(id).await?;
        let in_crash = case.fault == Some(Fault::CoordinatorKilled);
        rows.push(report::row(case, definition, &record, &history, in_crash));
    }
    office.coordinator.stop().await;
    let replayed = at_work.stop().await?;
    let books = company.books().await?;
    company.close().await;
    office.broker.close().await;
    office.store.close().await;

    progress.say("");
    let document = json!({ "items": rows, "books": books, "commandsThatCameTwice": replayed });
    context.output.list(&document, &rows, || report::table(&rows))?;
    progress.say(&format!("\n{}", report::sums(&books)));
    progress.say(&format!(
        "{replayed} commands came twice and took effect once; all took {:.1} s",
        watch.elapsed().as_secs_f64()
    ));
    let complaints = report::complaints(&rows, &books, &faults, replayed);
    if complaints.is_empty() {
        output::next(&["amends serve".to_owned(), "amends definitions schema".to_owned()]);
        Ok(Exit::Done)
    } else {
        Err(CliError::failed(format!("the demo did not go as planned: {}", complaints.join("; "))))
    }
}

async fn start_all(coordinator: &Coordinator) -> Result<Vec<SagaId>, CliError> {
    let starts = CASES.iter().map(|case| Start {
        saga: case.saga().to_owned(),
        version: None,
        input: Payload::from(case.input()),
        key: None,
    });
    let mut ids = Vec::new();
    for outcome in coordinator.start_many(starts.collect()).await {
        ids.push(match outcome? {
            StartOutcome::Started { id, .. } | StartOutcome::Exists { id } => id,
        });
    }
    Ok(ids)
}

/// Tells of the sagas until they stand as `is_enough` says.
async fn watch_all(
    office: &Office,
    definitions: &[Arc<Definition>],
    ids: &[SagaId],
    progress: &mut Progress,
    is_enough: impl Fn(&[Saga]) -> bool,
) -> Result<(), CliError> {
    loop {
        let mut sagas = Vec::new();
        for &id in ids {
            sagas.push(office.saga(id).await?);
        }
        for (case, saga) in CASES.iter().zip(&sagas) {
            let standing = definition_of(definitions, saga).map(|definition| standing(&definition, saga));
            progress.stands(case.key, standing.unwrap_or_default(), saga.state.is_terminal());
        }
        if is_enough(&sagas) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn definition_of(definitions: &[Arc<Definition>], saga: &Saga) -> Option<Arc<Definition>> {
    saga.expand(definitions.iter().find(|definition| definition.reference == saga.definition)?)
}

/// Whether nothing moves any more without a person.
fn all_still(sagas: &[Saga]) -> bool {
    sagas.iter().all(|saga| saga.state.is_terminal() || saga.state.stuck().is_some() || waits(saga))
}

/// Whether it waits for a word from outside.
fn waits(saga: &Saga) -> bool {
    let is_waiting =
        |step: &StepState| matches!(step.in_flight(), Some((_, command)) if matches!(command.phase, Phase::Waiting(_)));
    saga.steps.iter().any(is_waiting)
}

/// Does what an operator would do about what is stuck.
async fn step_in(office: &Office, ids: &[SagaId], progress: &mut Progress) -> Result<(), CliError> {
    for (case, &id) in CASES.iter().zip(ids) {
        let saga = office.saga(id).await?;
        if waits(&saga) {
            progress.say(&format!("\n  {} waits for an approval. Somebody gives it:", case.key));
            progress.say(&format!(
                "  amends sagas signal approval --saga {} --key {} --payload '{{\"by\":\"the boss\"}}'\n",
                case.saga(),
                case.key
            ));
            let payload = Payload::from(json!({ "by": "the boss" }));
            office.coordinator.signal(id, "approval".to_owned(), payload).await?;
        }
        let Some(stuck) = saga.state.stuck() else { continue };
        progress.say(&format!(
            "\n  {} is STUCK: {}. It waits for a person, who looks at it",
            case.key, stuck.problem.title
        ));
        progress.say("  and has it tried again:  amends sagas retry ID --reason 'called the bank'\n");
        let operate = Operate {
            id,
            action: OperatorAction::Retry { step: None },
            actor: "demo".to_owned(),
            reason: "called the bank".to_owned(),
            expected_revision: Some(saga.revision),
        };
        office.coordinator.operate(operate).await?;
    }
    Ok(())
}

/// Where a saga stands, in plain words.
fn standing(definition: &Definition, saga: &Saga) -> String {
    let steps = || definition.steps.iter().zip(&saga.steps);
    let in_words = |state: &StepState| match (state.status(), state.attempts()) {
        (StepStatus::Pending, 0 | 1) => Some("sent".to_owned()),
        (StepStatus::Pending, attempt) => Some(format!("sent, attempt {attempt}")),
        (StepStatus::Failed, _) => Some("refused".to_owned()),
        (StepStatus::Unknown, _) => Some("outcome unknown".to_owned()),
        (StepStatus::Compensating, _) => Some("being undone".to_owned()),
        (StepStatus::Compensated, _) => Some("undone".to_owned()),
        (StepStatus::Waiting | StepStatus::Verified | StepStatus::Skipped, _) => None,
    };
    let mut news: Vec<String> =
        steps().filter_map(|(step, state)| in_words(state).map(|words| format!("{} {words}", step.name))).collect();
    if news.is_empty() && !matches!(saga.state, SagaState::Completed) {
        let last = steps().rfind(|(_, state)| state.status() == StepStatus::Verified);
        news.extend(last.map(|(step, _)| format!("{} done", step.name)));
    }
    format!("{:<12} {}", saga.state.as_str(), news.join(", ")).trim_end().to_owned()
}
