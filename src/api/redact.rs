//! Takes what is sensitive out of what is shown.

use crate::client::views::{
    ChangeView, HistoryItem, OutboxItem, PreviewView, SagaSummaryView, SagaView, StepError, StuckView,
};
use crate::definition::Definition;
use crate::definition::sensitive::{Secrets, Sensitive};
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::SagaRecord;

/// What is hidden of a saga that was loaded with its commands.
pub(crate) fn secrets_of(definition: &Definition, record: &SagaRecord) -> Secrets {
    secrets_with(definition, record, None)
}

/// The same, with what would be sent if it were given another input.
pub(crate) fn secrets_with<'p>(
    definition: &Definition,
    record: &'p SagaRecord,
    given: impl IntoIterator<Item = &'p Payload>,
) -> Secrets {
    secrets_by(&definition.sensitive, record, given)
}

/// The same by these marks.
pub(crate) fn secrets_by<'p>(
    marks: &Sensitive,
    record: &'p SagaRecord,
    given: impl IntoIterator<Item = &'p Payload>,
) -> Secrets {
    if marks.is_empty() {
        return Secrets::default();
    }
    let saga = &record.saga;
    let of_saga = [&saga.input].into_iter().chain(&saga.output).chain(saga.outputs.values());
    let outputs = record.commands.iter().filter_map(|entry| entry.verified.as_ref()?.output.as_ref());
    let bodies = record.commands.iter().map(|entry| &entry.body);
    Secrets::of(marks, of_saga.chain(saga.signals.values()).chain(outputs).chain(bodies).chain(given))
}

/// Whether a saga of a list, which comes without input and outputs, must be read whole to know what is hidden of it.
pub(crate) fn must_be_whole(definition: &Definition, saga: &Saga) -> bool {
    let marks = &definition.sensitive;
    let has_text = || {
        let in_step = |step: &crate::saga::StepState| {
            step.problem().is_some() || step.in_flight().is_some_and(|(_, command)| command.last.is_some())
        };
        saga.state.stuck().is_some() || saga.cause.is_some() || saga.steps.iter().any(in_step)
    };
    !marks.is_empty() && (has_text() || saga.key.is_some() && definition.has_sensitive_key())
}

/// A view that can be shown without what is sensitive.
pub(crate) trait Redact: Sized {
    /// Takes it out.
    fn redact(&mut self, secrets: &Secrets);

    /// The same, given back.
    fn without(mut self, secrets: &Secrets) -> Self {
        if !secrets.is_empty() {
            self.redact(secrets);
        }
        self
    }
}

impl<T: Redact> Redact for Option<T> {
    fn redact(&mut self, secrets: &Secrets) {
        self.iter_mut().for_each(|value| value.redact(secrets));
    }
}

impl Redact for String {
    fn redact(&mut self, secrets: &Secrets) {
        secrets.redact(self);
    }
}

impl Redact for StepError {
    fn redact(&mut self, secrets: &Secrets) {
        self.title.redact(secrets);
        self.detail.redact(secrets);
    }
}

impl Redact for StuckView {
    fn redact(&mut self, secrets: &Secrets) {
        self.error.redact(secrets);
    }
}

impl Redact for SagaSummaryView {
    fn redact(&mut self, secrets: &Secrets) {
        self.key.redact(secrets);
        self.waiting_for.redact(secrets);
        self.stuck.redact(secrets);
    }
}

impl Redact for SagaView {
    fn redact(&mut self, secrets: &Secrets) {
        self.key.redact(secrets);
        secrets.payload(&mut self.input);
        self.output.iter_mut().for_each(|output| secrets.payload(output));
        self.waiting_for.redact(secrets);
        self.stuck.redact(secrets);
        self.cause.redact(secrets);
        for step in &mut self.steps {
            step.output.iter_mut().for_each(|output| secrets.payload(output));
            step.error.redact(secrets);
            if let Some(back) = &mut step.compensation {
                back.error.redact(secrets);
            }
        }
    }
}

impl Redact for HistoryItem {
    fn redact(&mut self, secrets: &Secrets) {
        self.output.iter_mut().for_each(|output| secrets.payload(output));
        self.error.redact(secrets);
        self.reason.redact(secrets);
        self.changes.redact(secrets);
        self.text.redact(secrets);
    }
}

/// Names of members can be values of other sagas' members; both may be what is hidden.
impl Redact for Vec<ChangeView> {
    fn redact(&mut self, secrets: &Secrets) {
        self.iter_mut().for_each(|change| change.pointer.redact(secrets));
    }
}

impl Redact for OutboxItem {
    fn redact(&mut self, secrets: &Secrets) {
        self.error.redact(secrets);
    }
}

impl Redact for PreviewView {
    fn redact(&mut self, secrets: &Secrets) {
        for planned in self.sends.iter_mut().chain(&mut self.follows).chain(&mut self.closes) {
            planned.body.iter_mut().for_each(|body| secrets.payload(body));
        }
        self.changes.redact(secrets);
    }
}
