//! What is hidden of a saga, wherever it is told of.

use crate::definition::Definition;
use crate::definition::sensitive::{Secrets, Sensitive};
use crate::saga::{Note, Problem, Saga};

impl Saga {
    /// What is hidden of it: what its definition marks, with the values that its payloads have there.
    pub fn secrets(&self, definition: &Definition) -> Secrets {
        self.secrets_by(&definition.sensitive)
    }

    /// The same by these marks.
    pub fn secrets_by(&self, marks: &Sensitive) -> Secrets {
        let payloads = [&self.input].into_iter().chain(&self.output);
        Secrets::of(marks, payloads.chain(self.outputs.values()).chain(self.signals.values()))
    }
}

impl Problem {
    /// Without what is hidden. Its type stays: it is a word that programs go by.
    #[must_use]
    pub fn redacted(self, secrets: &Secrets) -> Self {
        if secrets.is_empty() {
            return self;
        }
        Self {
            kind: self.kind,
            title: secrets.text(&self.title),
            detail: self.detail.map(|detail| secrets.text(&detail)),
        }
    }
}

impl Note {
    /// Without what is hidden.
    #[must_use]
    pub fn redacted(self, secrets: &Secrets) -> Self {
        match self {
            Self::StepFailed(step, problem) => Self::StepFailed(step, problem.redacted(secrets)),
            Self::StepUnknown(step, problem) => Self::StepUnknown(step, problem.redacted(secrets)),
            Self::Compensating(problem) => Self::Compensating(problem.redacted(secrets)),
            Self::Stuck(step, problem) => Self::Stuck(step, problem.redacted(secrets)),
            Self::Contradiction(step, what) => Self::Contradiction(step, secrets.text(&what)),
            other => other,
        }
    }
}
