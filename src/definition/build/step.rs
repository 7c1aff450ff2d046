//! A step of a definition that is written in Rust.

use std::marker::PhantomData;
use std::time::Duration;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::{Retry, time};
use crate::action::Action;
use crate::definition::OnTimeout;

/// A step, without what it does yet, or (`A`) with the action that it does.
#[derive(Clone, Debug)]
pub struct Step<A = ()> {
    pub(super) document: Map<String, Value>,
    /// The schema of what the action takes, and where a compensation says what it takes, of that.
    pub(super) takes: Option<Value>,
    pub(super) undo_takes: Option<Value>,
    action: PhantomData<fn() -> A>,
}

impl Step {
    /// A step called `name`.
    pub fn named(name: impl Into<String>) -> Self {
        let document = Map::from_iter([("name".to_owned(), Value::String(name.into()))]);
        Self { document, takes: None, undo_takes: None, action: PhantomData }
    }

    /// It asks a participant for an action.
    #[must_use]
    pub fn does<A: Action>(self) -> Step<A> {
        let mut step = self.with("participant", A::PARTICIPANT).with("action", A::NAME);
        step.takes = Some(SchemaGenerator::default().into_root_schema_for::<A::Input>().to_value());
        Step { document: step.document, takes: step.takes, undo_takes: None, action: PhantomData }
    }

    /// It starts another saga and waits for its end. Without a version, the newest there is then.
    #[must_use]
    pub fn starts(self, saga: &str, version: Option<u32>) -> Step<SubSaga> {
        let mut step = self.with("saga", saga);
        if let Some(version) = version {
            step = step.with("version", version);
        }
        Step { document: step.document, takes: None, undo_takes: None, action: PhantomData }
    }

    /// It waits for a signal from outside.
    #[must_use]
    pub fn waits_for(self, signal: &str, timeout: Duration, on_timeout: OnTimeout) -> Step<Pause> {
        let on_timeout = match on_timeout {
            OnTimeout::Fail => "fail",
            OnTimeout::Continue => "continue",
        };
        let step = self.with("wait", json!({ "signal": signal, "timeout": time(timeout), "onTimeout": on_timeout }));
        Step { document: step.document, takes: None, undo_takes: None, action: PhantomData }
    }

    /// It waits.
    #[must_use]
    pub fn delays(self, length: Duration) -> Step<Pause> {
        let step = self.with("delay", time(length));
        Step { document: step.document, takes: None, undo_takes: None, action: PhantomData }
    }
}

/// What a step does that starts another saga.
#[derive(Clone, Copy, Debug)]
pub enum SubSaga {}

/// What a step does that waits.
#[derive(Clone, Copy, Debug)]
pub enum Pause {}

impl<A> Step<A> {
    /// The same without its type.
    pub(super) fn erased(self) -> Step {
        Step { document: self.document, takes: self.takes, undo_takes: self.undo_takes, action: PhantomData }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.document.insert(key.to_owned(), value.into());
        self
    }

    /// The steps that it waits for; the one before it unless said. With none it is one of the first.
    #[must_use]
    pub fn after<T: Into<String>>(self, steps: impl IntoIterator<Item = T>) -> Self {
        let steps: Vec<String> = steps.into_iter().map(Into::into).collect();
        self.with("after", steps)
    }

    /// It is skipped unless this expression holds, for example `${ size(input.lines) > 0 }`.
    #[must_use]
    pub fn when(self, condition: impl Into<String>) -> Self {
        self.with("when", condition.into())
    }

    /// What it takes, with expressions in it; the saga's input unless said.
    #[must_use]
    pub fn input(self, input: impl Into<Value>) -> Self {
        self.with("input", input)
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", time(timeout))
    }

    /// When and how often it is tried again.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        self.with("retry", retry)
    }

    /// It is done once for each item of a list of the saga's input, at most so many at once.
    #[must_use]
    pub fn for_each(self, items: impl Into<String>, max_parallel: Option<u16>) -> Self {
        let mut each = json!({ "items": items.into() });
        if let Some(most) = max_parallel {
            each["maxParallel"] = most.into();
        }
        self.with("forEach", each)
    }

    /// The list may have so many items, 100 unless said; a saga with a longer one is not started. After `for_each`.
    #[must_use]
    pub fn max_items(mut self, most: u16) -> Self {
        if let Some(Value::Object(each)) = self.document.get_mut("forEach") {
            each.insert("maxItems".to_owned(), most.into());
        }
        self
    }

    /// It leaves nothing behind that would have to be undone.
    #[must_use]
    pub fn nothing_to_undo(self) -> Self {
        self.with("compensation", "none")
    }

    /// Once it is sent, the saga only goes forward.
    #[must_use]
    pub fn pivot(self) -> Self {
        self.with("pivot", true)
    }
}

impl<A: Action> Step<A> {
    /// What undoes it: an action of the same participant, sent what the step was sent.
    ///
    /// ```compile_fail
    /// # use amends::{action::Action, definition::build::Step};
    /// # struct Pick;
    /// # impl Action for Pick {
    /// #     const PARTICIPANT: &'static str = "warehouse";
    /// #     const NAME: &'static str = "pick";
    /// #     type Input = String;
    /// #     type Output = ();
    /// # }
    /// struct Refund;
    /// impl Action for Refund {
    ///     const PARTICIPANT: &'static str = "payments";
    ///     const NAME: &'static str = "refund";
    ///     type Input = String;
    ///     type Output = ();
    /// }
    /// // Does not compile: the warehouse cannot refund.
    /// let step = Step::named("pick").does::<Pick>().undone_by::<Refund>();
    /// ```
    ///
    /// Nor does one that takes something else:
    ///
    /// ```compile_fail,E0271
    /// # use amends::{action::Action, definition::build::Step};
    /// # struct Pick;
    /// # impl Action for Pick {
    /// #     const PARTICIPANT: &'static str = "warehouse";
    /// #     const NAME: &'static str = "pick";
    /// #     type Input = String;
    /// #     type Output = ();
    /// # }
    /// struct Unpick;
    /// impl Action for Unpick {
    ///     const PARTICIPANT: &'static str = "warehouse";
    ///     const NAME: &'static str = "unpick";
    ///     type Input = bool;
    ///     type Output = ();
    /// }
    /// let step = Step::named("pick").does::<Pick>().undone_by::<Unpick>();
    /// ```
    #[must_use]
    pub fn undone_by<C: Action<Input = A::Input>>(self) -> Self {
        const { assert!(is_same(A::PARTICIPANT, C::PARTICIPANT), "a step is undone by the participant that did it") };
        self.with("compensation", json!({ "action": C::NAME }))
    }

    /// What undoes it: an action of the same participant, sent `input`.
    #[must_use]
    pub fn undone_by_with<C: Action>(mut self, input: impl Into<Value>) -> Self {
        const { assert!(is_same(A::PARTICIPANT, C::PARTICIPANT), "a step is undone by the participant that did it") };
        self.undo_takes = Some(SchemaGenerator::default().into_root_schema_for::<C::Input>().to_value());
        self.with("compensation", json!({ "action": C::NAME, "input": input.into() }))
    }

    /// How long an attempt of its compensation may take, and how often it is tried. After `undone_by`.
    #[must_use]
    pub fn undo_limits(mut self, timeout: Option<Duration>, retry: Option<Retry>) -> Self {
        if let Some(Value::Object(compensation)) = self.document.get_mut("compensation") {
            compensation.extend(timeout.map(|timeout| ("timeout".to_owned(), time(timeout).into())));
            compensation.extend(retry.map(|retry| ("retry".to_owned(), retry.into())));
        }
        self
    }
}

/// Whether two texts are equal, for a compiler to find out.
const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
