//! What is sent: three steps at three participants, each with the saga's whole input of about 200 bytes. The last step
//! refuses those sagas whose input says so, so that a refused saga takes five round trips.

use serde_json::{Value, json};

/// The steps' names, in order; each has a participant of its own.
pub(super) const STEPS: [&str; 3] = ["reserve", "charge", "confirm"];
/// What every participant is asked to do.
pub(super) const ACTION: &str = "do";
/// What undoes it.
pub(super) const UNDO: &str = "undo";
/// What the last step refuses with.
pub(super) const REFUSAL: &str = "bench-refused";
/// How the input of a saga that is to be refused is known, without parsing it.
pub(super) const REFUSE_MARK: &[u8] = br#""refuse":true"#;

/// How many sagas, how many at once, how many of them refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) sagas: u32,
    pub(super) in_flight: u32,
    pub(super) refuse_percent: u32,
}

impl Load {
    pub(super) fn new(sagas: u32, in_flight: u32, refuse_percent: u32) -> Self {
        Self { sagas, in_flight: in_flight.min(sagas), refuse_percent }
    }

    /// A small part of it, so that connections, caches and plans are there when it counts.
    pub(super) fn warm_up(self) -> Self {
        let sagas = (self.sagas / 10).clamp(1, 1_000);
        Self { sagas, in_flight: self.in_flight.min(sagas), ..self }
    }

    /// Whether saga number `n` is one of those that are refused, which are spread evenly.
    pub(super) fn is_refused(&self, n: u32) -> bool {
        let before = |n: u64| n * u64::from(self.refuse_percent) / 100;
        before(u64::from(n) + 1) > before(u64::from(n))
    }

    /// How many of its sagas are refused.
    pub(super) fn refused(&self) -> u32 {
        (0..self.sagas).map(|n| u32::from(self.is_refused(n))).sum()
    }

    /// The input of saga number `n`.
    pub(super) fn input(&self, n: u32) -> Value {
        json!({
            "orderId": format!("order-{n:010}"),
            "customer": "4f8d2c1e-90ab-4c55-8f0e-2b6a1f3d7c90",
            "lines": [{ "sku": "blue-train", "quantity": 2 }, { "sku": "giant-steps", "quantity": 1 }],
            "refuse": self.is_refused(n),
            "total": 4_200,
        })
    }
}

/// The names of one run, which nothing else on the same broker and database has.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Of the run; also the definition's.
    pub(super) run: String,
}

impl Names {
    /// For a run called `run`.
    pub(super) fn new(run: &str) -> Self {
        Self { run: run.to_owned() }
    }

    /// Of the same run, with other queues, for participants with another client.
    pub(super) fn with_lapin(&self) -> Self {
        Self { run: format!("{}-lapin", self.run) }
    }

    /// The participant of step `step`, from 0.
    pub(super) fn participant(&self, step: usize) -> String {
        format!("{}-{}", self.run, STEPS.get(step).unwrap_or(&"none"))
    }

    pub(super) fn participants(&self) -> Vec<String> {
        (0..STEPS.len()).map(|step| self.participant(step)).collect()
    }

    /// The participant of `bench fairness` that has stopped.
    pub(super) fn flooded(&self) -> String {
        format!("{}-flooded", self.run)
    }

    /// The definition that floods it.
    pub(super) fn flood(&self) -> String {
        let name = self.flooded();
        format!(
            "saga: {name}\nversion: 1\ndefaults: {{ timeout: 1h, retry: {{ maxAttempts: 5 }} }}\nsteps:\n\
            \x20 - {{ name: work, participant: {name}, action: {ACTION}, pivot: true, compensation: none }}\n"
        )
    }

    /// The coordinator's reply queue.
    pub(super) fn replies(&self) -> String {
        format!("{}.replies", self.run)
    }

    /// The floor's.
    pub(super) fn floor_replies(&self) -> String {
        format!("{}.floor.replies", self.run)
    }

    /// The definition's text.
    pub(super) fn definition(&self) -> String {
        let mut text = format!(
            "saga: {}\nversion: 1\ndefaults: {{ timeout: 5m, retry: {{ maxAttempts: 5 }} }}\nsteps:\n",
            self.run
        );
        for (at, step) in STEPS.iter().enumerate() {
            let is_last = at + 1 == STEPS.len();
            let rest = if is_last { "pivot: true\n    compensation: none" } else { "compensation: { action: undo }" };
            let participant = self.participant(at);
            text.push_str(&format!(
                "  - name: {step}\n    participant: {participant}\n    action: {ACTION}\n    {rest}\n"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_without_errors() {
        let flood = crate::definition::read(&Names::new("bench-1").flood());
        assert!(flood.definition.is_some(), "{:?}", flood.diagnostics);
        let checked = crate::definition::read(&Names::new("bench-1").definition());
        assert!(checked.definition.is_some(), "{:?}", checked.diagnostics);
    }

    #[test]
    fn refusals_are_spread_and_counted() {
        let refused = |percent| Load::new(1_000, 10, percent).refused();
        assert_eq!([0, 1, 10, 99, 100].map(refused), [0, 10, 100, 990, 1_000]);
        let tenth = Load::new(20, 1, 10);
        assert_eq!((0..20).filter(|n| tenth.is_refused(*n)).collect::<Vec<_>>(), [9, 19]);
    }

    #[test]
    fn an_input_has_about_200_bytes_and_says_whether_it_is_refused() {
        for (percent, is_refused) in [(0, false), (100, true)] {
            let text = Load::new(1, 1, percent).input(0).to_string();
            assert!((180..=260).contains(&text.len()), "{} bytes", text.len());
            assert_eq!(text.as_bytes().windows(REFUSE_MARK.len()).any(|part| part == REFUSE_MARK), is_refused);
        }
    }
}
