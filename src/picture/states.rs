//! A running saga's states, as a picture shows them.

/// A saga and its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaLook {
    /// What tells it from others, for example its key or id.
    pub label: String,
    /// Its state in the word of the contract, for example `COMPENSATING`.
    pub state: String,
    /// What more there is to say: what it waits for, or why it is stuck.
    pub note: Option<String>,
    /// Its steps, in the order of the definition. Elements of a `forEach` step are called `name[0]`, `name[1]` ...
    pub steps: Vec<StepLook>,
}

/// Where one step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepLook {
    /// The step's name.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// What went wrong, if anything did; or how many elements are how far.
    pub note: Option<String>,
}

/// Where a step stands, in the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words are those of `saga::StepStatus`")]
pub enum State {
    Verified,
    Skipped,
    Compensated,
    Waiting,
    Pending,
    Compensating,
    Unknown,
    Failed,
}

impl State {
    /// Every state, from the most peaceful to the most pressing.
    pub const ALL: [Self; 8] = [
        Self::Verified,
        Self::Skipped,
        Self::Compensated,
        Self::Waiting,
        Self::Pending,
        Self::Compensating,
        Self::Unknown,
        Self::Failed,
    ];

    /// The word of the contract, for example `verified`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Skipped => "skipped",
            Self::Compensated => "compensated",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Compensating => "compensating",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }

    /// The state that the word means; a word that is not known yet is `unknown`.
    pub fn of_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == word).unwrap_or(Self::Unknown)
    }
}

impl StepLook {
    /// In one line, for example `pending, attempt 2`.
    pub fn in_words(&self) -> String {
        let mut told = self.state.as_str().to_owned();
        if self.attempts > 1 && !matches!(self.state, State::Waiting | State::Skipped) {
            told.push_str(&match self.state {
                State::Pending => format!(", attempt {}", self.attempts),
                _ => format!(", {} attempts", self.attempts),
            });
        }
        if let Some(note) = &self.note {
            told.push_str(&format!(": {note}"));
        }
        told
    }
}

impl SagaLook {
    /// The step's look; that of a `forEach` step is put together from those of its elements.
    pub(super) fn of_step(&self, name: &str) -> Option<StepLook> {
        if let Some(step) = self.steps.iter().find(|step| step.name == name) {
            return Some(step.clone());
        }
        let is_element = |step: &&StepLook| {
            step.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']'))
        };
        let elements: Vec<&StepLook> = self.steps.iter().filter(is_element).collect();
        let state = elements.iter().map(|step| step.state).max()?;
        let counts = State::ALL.iter().filter_map(|state| {
            let count = elements.iter().filter(|step| step.state == *state).count();
            (count > 0).then(|| format!("{count} {}", state.as_str()))
        });
        let counts: Vec<String> = counts.collect();
        Some(StepLook { name: name.to_owned(), state, attempts: 0, note: Some(counts.join(", ")) })
    }
}
