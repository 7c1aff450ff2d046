//! Versions while sagas run: deprecating them, and moving sagas from one to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::coordinator::work::{Item, MigrateItem, Waiting};
use crate::coordinator::{Coordinator, CoordinatorError};
use crate::definition::Definition;
use crate::id::{DefinitionRef, SagaId};
use crate::saga::{Reason, Saga, expanded_for, migrate};
use crate::store::{AuditRecord, Changes, DeprecationChange, Page, SagaFilter, Wants};

/// How often a migration is tried that needs what a saga's steps put out, while the saga keeps moving.
const TRIES: u32 = 8;
/// The states of sagas in flight.
const IN_FLIGHT: [&str; 3] = ["RUNNING", "COMPENSATING", "STUCK"];

/// A version to be deprecated, or no longer.
#[derive(Clone, Debug)]
pub struct Deprecate {
    /// The version.
    pub reference: DefinitionRef,
    /// Whether it is deprecated from now on.
    pub is_deprecated: bool,
    /// Who wants it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A saga to be moved to another version of its definition.
#[derive(Clone, Debug)]
pub struct Migrate {
    /// The saga.
    pub id: SagaId,
    /// The version.
    pub to: u32,
    /// Who wants it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The revision that the operator looked at; refused when the saga has moved since.
    pub expected_revision: Option<u32>,
}

/// What would become of a saga that is moved.
#[derive(Clone, Debug)]
pub struct MigrationPlan {
    /// The saga as it is.
    pub saga: Saga,
    /// Why it cannot be moved; empty when it can.
    pub reasons: Vec<Reason>,
}

impl Coordinator {
    /// Deprecates a version, so that nothing new is started with it, or undoes that; running sagas go on either way.
    /// Its audit row is in the same transaction. Other coordinators go by it within half a second. Returns whether
    /// anything changed.
    ///
    /// # Errors
    /// When there is no such version, or the store cannot be read or written.
    pub async fn deprecate(&self, deprecate: Deprecate) -> Result<bool, CoordinatorError> {
        let Deprecate { reference, is_deprecated, actor, reason } = deprecate;
        // Not from memory: another coordinator may have done it already.
        let known = self.store().definition(&reference).await?;
        let Some(record) = known else {
            self.definition(&reference).await?;
            return Ok(false);
        };
        if record.deprecated.is_some() == is_deprecated {
            return Ok(false);
        }
        let about = reference.clone();
        let decide = move |loaded: crate::store::Loaded| {
            let at = loaded.now;
            let audit = AuditRecord {
                id: 0,
                at,
                actor: actor.clone(),
                saga: None,
                action: if is_deprecated { "deprecate" } else { "undeprecate" }.to_owned(),
                reason: reason.clone(),
                detail: serde_json::json!({ "definition": reference }).into(),
            };
            let change = DeprecationChange { reference, is_deprecated, at, actor, reason };
            Changes { audits: vec![audit], deprecations: vec![change], ..Changes::default() }
        };
        self.store().commit(Wants::default(), Box::new(decide)).await?;
        self.0.registry.forget_standing(&about);
        Ok(true)
    }

    /// Moves a saga to another version of its definition, with its audit row in the same transaction; returns the saga
    /// as it is then.
    ///
    /// # Errors
    /// [`CoordinatorError::MigrationRefused`] with every reason; nothing was done then, nor after any other error.
    pub async fn migrate(&self, request: Migrate) -> Result<Saga, CoordinatorError> {
        let Migrate { id, to, actor, reason, expected_revision } = request;
        let mut tries = 1;
        loop {
            let (saga, _, to) = self.both(id, to).await?;
            let item = MigrateItem {
                id,
                to: to.clone(),
                outputs: saga.outputs,
                seen_revision: saga.revision,
                actor: actor.clone(),
                reason: reason.clone(),
                expected_revision,
            };
            let (sender, receiver) = oneshot::channel();
            self.submit(Item::Migrate(item), Waiting::Operator(sender))?;
            match receiver.await.unwrap_or(Err(CoordinatorError::Stopping)) {
                Err(CoordinatorError::Moved { .. }) if expected_revision.is_none() && tries < TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// What would become of a saga that is moved to version `to`. Nothing is done.
    ///
    /// # Errors
    /// When there is no such saga or version, or the store cannot be read.
    pub async fn plan_migration(&self, id: SagaId, to: u32) -> Result<MigrationPlan, CoordinatorError> {
        let (saga, from, to) = self.both(id, to).await?;
        let now = self.store().health().await?.now;
        Ok(planned(saga, &from, &to, now))
    }

    /// The same for the sagas in flight that are at `from`, a page of those of any version. Also returns where the next
    /// page begins, if there is one.
    ///
    /// # Errors
    /// When one of the versions is not there, or the store cannot be read.
    pub async fn plan_migrations(
        &self,
        from: &DefinitionRef,
        to: u32,
        page: &Page<SagaId>,
    ) -> Result<(Vec<MigrationPlan>, Option<SagaId>), CoordinatorError> {
        let old = self.definition(from).await?;
        let new = self.open_version(&DefinitionRef { version: to, ..from.clone() }).await?;
        let states = IN_FLIGHT.map(str::to_owned).to_vec();
        let filter = SagaFilter { definition: Some(from.name.clone()), states, ..SagaFilter::default() };
        let found = self.store().sagas(&filter, page).await?;
        let next = found.last().filter(|_| found.len() >= page.limit as usize).map(|last| last.saga.id);
        let now = self.store().health().await?.now;
        let mut plans = Vec::new();
        for summary in found.into_iter().filter(|summary| summary.saga.definition == *from) {
            // Whole, since inputs and outputs have their say.
            let Some(record) = self.store().saga(summary.saga.id).await? else { continue };
            if record.saga.definition == *from && !record.saga.state.is_terminal() {
                plans.push(planned(record.saga, &old, &new, now));
            }
        }
        Ok((plans, next))
    }

    /// A registered version, or what a start without a version gets.
    ///
    /// # Errors
    /// When there is no such definition or version, or the store cannot be read.
    pub async fn version(&self, name: &str, version: Option<u32>) -> Result<Arc<Definition>, CoordinatorError> {
        Ok(self.0.registry.resolve_open(name, version).await?.0)
    }

    /// The saga with its outputs, its definition, and version `to` of it.
    async fn both(&self, id: SagaId, to: u32) -> Result<(Saga, Arc<Definition>, Arc<Definition>), CoordinatorError> {
        let saga = self.store().saga(id).await?.ok_or(CoordinatorError::UnknownSaga(id))?.saga;
        let from = self.definition(&saga.definition).await?;
        let to = self.open_version(&DefinitionRef { version: to, ..saga.definition.clone() }).await?;
        Ok((saga, from, to))
    }

    /// A version that takes in sagas.
    async fn open_version(&self, reference: &DefinitionRef) -> Result<Arc<Definition>, CoordinatorError> {
        let (definition, deprecated) = self.0.registry.resolve_open(&reference.name, Some(reference.version)).await?;
        match deprecated {
            None => Ok(definition),
            Some(deprecation) => Err(CoordinatorError::VersionDeprecated {
                definition: definition.reference.clone(),
                reason: deprecation.reason,
            }),
        }
    }
}

fn planned(saga: Saga, from: &Arc<Definition>, to: &Arc<Definition>, now: Timestamp) -> MigrationPlan {
    let moved = expanded_for(from, &saga)
        .and_then(|from| Ok((from, expanded_for(to, &saga)?)))
        .and_then(|(from, to)| migrate(&from, &to, &saga, now));
    let reasons = moved.err().unwrap_or_default();
    MigrationPlan { saga: Saga { outputs: BTreeMap::new(), ..saga }, reasons }
}
