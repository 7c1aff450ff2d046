//! Advice on recorded runs whose best order is known: each made-up saga has it in it from the start which steps would be
//! refused, so that every order can be tried on the very same sagas.

use std::time::Duration;

use amends::definition::{Definition, read};
use amends::saga::advice::{Advice, Fit};
use amends::saga::figures::{CommandCount, Figures, Latency, QUANTILES, Undone};
use amends::saga::{Direction, Outcome, advise};

/// A step before the pivot: how often it is refused, whether it has a compensation, and whose output it reads.
#[derive(Clone, Copy, Debug)]
struct Made {
    name: &'static str,
    refused: f64,
    compensated: bool,
    reads: &'static [&'static str],
}

fn made(name: &'static str, refused: f64) -> Made {
    Made { name, refused, compensated: true, reads: &[] }
}

fn definition(steps: &[Made]) -> std::sync::Arc<Definition> {
    let mut source = "saga: made\nversion: 1\nsteps:\n".to_owned();
    for step in steps {
        let reads: Vec<String> =
            step.reads.iter().map(|read| format!("{read}: \"${{ steps['{read}'].output.id }}\"")).collect();
        let undo = if step.compensated { "{ action: undo }" } else { "none" };
        source.push_str(&format!(
            "  - {{ name: {}, participant: p, action: do, input: {{ {} }}, compensation: {undo} }}\n",
            step.name,
            reads.join(", ")
        ));
    }
    source.push_str("  - { name: end, participant: p, action: end, pivot: true, compensation: none }\n");
    read(&source).definition.expect("no errors")
}

/// Numbers that look random and are the same every time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Which steps each saga would see refused, whenever they come.
fn sagas(steps: &[Made], count: usize, seed: u64) -> Vec<Vec<bool>> {
    let mut dice = Dice(seed);
    (0..count).map(|_| steps.iter().map(|step| dice.roll() < step.refused).collect()).collect()
}

/// What is recorded of the sagas when the steps come in the order of the definition.
fn recorded(steps: &[Made], sagas: &[Vec<bool>]) -> Figures {
    let mut figures = Figures::default();
    let turned = |saga: &&Vec<bool>| saga.iter().any(|refused| *refused);
    let compensated = sagas.iter().filter(turned).count() as u64;
    figures.ended.push(("COMPENSATED".to_owned(), compensated));
    figures.ended.push(("COMPLETED".to_owned(), sagas.len() as u64 - compensated));
    for (at, step) in steps.iter().enumerate() {
        let reached: Vec<&Vec<bool>> = sagas.iter().filter(|saga| !saga[..at].contains(&true)).collect();
        let refused = reached.iter().filter(|saga| saga[at]).count() as u64;
        let mut count = |outcome, count| {
            let (step, direction) = (step.name.to_owned(), Direction::Action);
            figures.commands.push(CommandCount { step, direction, outcome, attempt: 1, count });
        };
        count(Outcome::Success, reached.len() as u64 - refused);
        count(Outcome::Failure, refused);
        figures.turned.push((step.name.to_owned(), refused));
        for before in steps[..at].iter().filter(|before| before.compensated) {
            let pair = Undone { because: step.name.to_owned(), step: before.name.to_owned(), sagas: refused };
            figures.undone.push(pair);
        }
    }
    figures
}

/// Compensations of all sagas together, in this order.
fn compensations(steps: &[Made], order: &[usize], sagas: &[Vec<bool>]) -> usize {
    let of_one = |saga: &Vec<bool>| match order.iter().position(|&at| saga[at]) {
        Some(turned) => order[..turned].iter().filter(|&&at| steps[at].compensated).count(),
        None => 0,
    };
    sagas.iter().map(of_one).sum()
}

/// Every order that the data allows.
fn orders(steps: &[Made]) -> Vec<Vec<usize>> {
    fn grow(steps: &[Made], so_far: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if so_far.len() == steps.len() {
            all.push(so_far.clone());
        }
        for at in 0..steps.len() {
            let is_there = |name: &&str| so_far.iter().any(|&before| steps[before].name == *name);
            if !so_far.contains(&at) && steps[at].reads.iter().all(is_there) {
                so_far.push(at);
                grow(steps, so_far, all);
                so_far.pop();
            }
        }
    }
    let mut all = Vec::new();
    grow(steps, &mut Vec::new(), &mut all);
    all
}

fn best(steps: &[Made], sagas: &[Vec<bool>]) -> usize {
    orders(steps).iter().map(|order| compensations(steps, order, sagas)).min().expect("the order as it is")
}

fn places(steps: &[Made], names: &[String]) -> Vec<usize> {
    names.iter().map(|name| steps.iter().position(|step| step.name == name).expect("a known step")).collect()
}

fn advice_on(steps: &[Made], sagas: &[Vec<bool>]) -> Advice {
    advise(&definition(steps), &recorded(steps, sagas))
}

#[test]
fn the_best_order_is_found_and_what_it_saves_is_what_it_would_have_saved() {
    let steps = [made("reserve", 0.01), made("authorise-payment", 0.05), made("pick", 0.3)];
    let sagas = sagas(&steps, 2_000, 1);
    let advice = advice_on(&steps, &sagas);
    assert_eq!(advice.order, ["pick", "authorise-payment", "reserve"]);
    let now = compensations(&steps, &[0, 1, 2], &sagas);
    let then = compensations(&steps, &places(&steps, &advice.order), &sagas);
    assert_eq!(then, best(&steps, &sagas));
    let told: i64 = advice.moves.iter().map(|found| found.saved as i64 - found.added as i64).sum();
    let real = now as i64 - then as i64;
    assert!((told - real).abs() * 10 < real, "told {told}, and it is {real}");
    assert!(advice.silent.iter().all(|silent| !silent.starts_with("the order")), "{:?}", advice.silent);
}

#[test]
fn a_move_counts_the_sagas_that_were_recorded() {
    let checks = Made { compensated: false, ..made("pick", 0.2) };
    let steps = [made("authorise-payment", 0.0), checks];
    let sagas = sagas(&steps, 1_340, 2);
    let refused = sagas.iter().filter(|saga| saga[1]).count();
    let advice = advice_on(&steps, &sagas);
    let [found] = advice.moves.as_slice() else { panic!("{:?}", advice.moves) };
    assert_eq!((found.sagas, found.saved, found.added, found.of), (refused as u64, refused as u64, 0, 1_340));
    let text = format!(
        "move `pick` before `authorise-payment`: {refused} of 1,340 sagas would have compensated one step fewer"
    );
    assert_eq!(found.to_string(), text);
}

#[test]
fn data_binds_steps_and_an_order_without_data_does_not() {
    let reader = Made { reads: &["reserve"], ..made("pick", 0.4) };
    let steps = [made("reserve", 0.01), made("authorise-payment", 0.02), reader];
    let sagas = sagas(&steps, 3_000, 3);
    let advice = advice_on(&steps, &sagas);
    assert_eq!(advice.order, ["reserve", "pick", "authorise-payment"]);
    assert_eq!(compensations(&steps, &places(&steps, &advice.order), &sagas), best(&steps, &sagas));
}

#[test]
fn what_is_read_by_way_of_another_step_binds_too() {
    let middle = Made { reads: &["first"], ..made("second", 0.0) };
    let last = Made { reads: &["second"], ..made("third", 0.4) };
    let steps = [made("first", 0.0), middle, last];
    assert_eq!(advice_on(&steps, &sagas(&steps, 3_000, 4)).moves, []);
}

#[test]
fn nothing_is_moved_across_the_pivot() {
    let source = "saga: made\nversion: 1\nsteps:\n  \
        - { name: a, participant: p, action: do, compensation: { action: undo } }\n  \
        - { name: end, participant: p, action: end, pivot: true, compensation: none }\n  \
        - { name: late, participant: p, action: do }\n";
    let definition = read(source).definition.expect("no errors");
    let mut figures = Figures { ended: vec![("COMPENSATED".to_owned(), 1_000)], ..Figures::default() };
    for bad in ["end", "late"] {
        figures.turned.push((bad.to_owned(), 500));
        figures.undone.push(Undone { because: bad.to_owned(), step: "a".to_owned(), sagas: 500 });
    }
    assert_eq!(advise(&definition, &figures).moves, []);
}

#[test]
fn random_definitions_are_never_made_worse_and_nearly_always_best() {
    let names = ["a", "b", "c", "d", "e"];
    let mut dice = Dice(5);
    let mut found_best = 0;
    for round in 0..60 {
        let steps: Vec<Made> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let reads: &'static [&'static str] = match at {
                    2 if dice.roll() < 0.5 => &["a"],
                    4 if dice.roll() < 0.5 => &["b"],
                    _ => &[],
                };
                Made { refused: dice.roll().powi(3) * 0.4, compensated: dice.roll() < 0.8, reads, ..made(name, 0.0) }
            })
            .collect();
        let sagas = sagas(&steps, 6_000, round);
        let advice = advice_on(&steps, &sagas);
        let now = compensations(&steps, &[0, 1, 2, 3, 4], &sagas);
        let order = if advice.order.is_empty() { vec![0, 1, 2, 3, 4] } else { places(&steps, &advice.order) };
        assert!(orders(&steps).contains(&order), "the data does not allow {order:?} of {steps:?}");
        let then = compensations(&steps, &order, &sagas);
        assert!(then <= now, "{steps:?}: {now} became {then}");
        let best = best(&steps, &sagas);
        // What is left to gain is within what could be chance.
        found_best += u32::from((then - best) * 20 <= now.max(20));
    }
    assert!(found_best >= 56, "only {found_best} of 60 came within a twentieth of the best");
}

#[test]
fn chance_makes_no_advice() {
    let steps = [made("a", 0.1), made("b", 0.1), made("c", 0.1), made("d", 0.1)];
    let advised = (0..400).filter(|&seed| !advice_on(&steps, &sagas(&steps, 1_000, seed)).moves.is_empty()).count();
    assert!(advised <= 20, "{advised} of 400 is more than one in twenty");
}

#[test]
fn thin_data_is_called_thin() {
    let steps = [made("a", 0.0), made("b", 0.6)];
    let advice = advice_on(&steps, &sagas(&steps, 49, 6));
    assert_eq!(advice.moves, []);
    assert_eq!(advice.silent[0], "the order: 49 sagas have ended, and 50 are needed");
    assert_eq!(advice.silent.len(), 3, "order, time-outs and retries: {:?}", advice.silent);

    let few = [made("a", 0.0), made("b", 0.05)];
    let advice = advice_on(&few, &sagas(&few, 200, 7));
    assert_eq!(advice.moves, []);
    assert!(advice.silent[0].contains("could be chance"), "{:?}", advice.silent);
    assert_eq!(advise(&definition(&few), &Figures::default()).moves, []);
}

fn measured(count: u64, quantiles: [u64; QUANTILES.len()], longest: u64) -> Figures {
    let latency = Latency {
        step: "a".to_owned(),
        direction: Direction::Action,
        count,
        quantiles: quantiles.map(Duration::from_millis),
        longest: Duration::from_millis(longest),
    };
    Figures { latencies: vec![latency], ..Figures::default() }
}

#[test]
fn a_time_out_that_successes_come_after_is_too_tight() {
    let steps = definition(&[made("a", 0.0)]);
    let late = [100, 5_000, 20_000, 31_000, 35_000, 50_000];
    let advice = advise(&steps, &measured(1_000, late, 60_000));
    let [found] = advice.timeouts.as_slice() else { panic!("{advice:?}") };
    assert_eq!(
        (found.fit, found.timeout, found.suggested),
        (Fit::Tight, Duration::from_secs(30), Duration::from_secs(200))
    );
    assert_eq!(
        found.to_string(),
        "the time-out of `a` is too tight: successes come after it; it is 30 s, and of 1,000 successes at the first \
         attempt half took at most 100 ms, 95 % took at most 20 s, 99 % took at most 35 s, the longest 1 min; try 3.3 min"
    );
    let once = [100, 100, 100, 100, 100, 31_000];
    assert_eq!(advise(&steps, &measured(1_000, once, 31_000)).timeouts, [], "one of a thousand could be chance");
}

#[test]
fn a_time_out_that_nothing_comes_near_is_too_loose_once_that_is_certain() {
    let steps = definition(&[made("a", 0.0)]);
    let quick = [20, 30, 40, 50, 60, 90];
    let advice = advise(&steps, &measured(299, quick, 100));
    let [found] = advice.timeouts.as_slice() else { panic!("{advice:?}") };
    assert_eq!((found.fit, found.suggested), (Fit::Loose, Duration::from_secs(1)));
    assert_eq!(advise(&steps, &measured(298, quick, 100)).timeouts, []);
    assert_eq!(advise(&steps, &measured(5_000, quick, 4_000)).timeouts, [], "30 s is within ten times the longest");
    assert!(advise(&steps, &measured(99, quick, 100)).silent.iter().any(|silent| silent.starts_with("time-outs")));
}

fn tried(counts: &[(Outcome, u32, u64)]) -> Figures {
    let commands = counts.iter().map(|&(outcome, attempt, count)| {
        let (step, direction) = ("a".to_owned(), Direction::Action);
        CommandCount { step, direction, outcome, attempt, count }
    });
    Figures { commands: commands.collect(), ..Figures::default() }
}

#[test]
fn retries_that_never_helped_are_told_with_how_much_they_still_could() {
    use Outcome::{Failure, Success, Unknown};
    let steps = definition(&[made("a", 0.0)]);
    let advice = advise(&steps, &tried(&[(Success, 1, 900), (Unknown, 5, 50), (Failure, 2, 24)]));
    let [found] = advice.retries.as_slice() else { panic!("{advice:?}") };
    assert_eq!((found.last_useful, found.commands), (1, 74));
    assert_eq!(
        found.to_string(),
        "retries of `a` never helped: 74 commands got that far and none succeeded (at most 4.0 % would)"
    );
    let advice = advise(&steps, &tried(&[(Success, 1, 900), (Success, 3, 2), (Unknown, 5, 60)]));
    assert_eq!(advice.retries[0].to_string().split(':').next(), Some("attempts of `a` after number 3 never helped"));
    let helped = tried(&[(Success, 1, 900), (Success, 5, 1), (Unknown, 5, 500)]);
    assert_eq!(advise(&steps, &helped).retries, []);
    let thin = advise(&steps, &tried(&[(Success, 1, 900), (Unknown, 5, 59)]));
    assert_eq!(thin.retries, []);
    assert!(thin.silent.iter().any(|silent| silent.starts_with("retries")), "{:?}", thin.silent);
    assert_eq!(advise(&steps, &tried(&[(Unknown, 5, 100)])).retries, [], "it never succeeded at all");
}

#[test]
fn what_the_order_cannot_be_told_for_is_said_and_why() {
    let steps: Vec<String> = (0..15)
        .map(|at| format!("  - {{ name: s{at}, participant: p, action: do, compensation: {{ action: undo }} }}\n"))
        .collect();
    let many = format!("saga: many\nversion: 1\nsteps:\n{}", steps.concat());
    let list = "saga: list\nversion: 1\nsteps:\n  - { name: a, participant: p, action: do, compensation: { action: undo } }\n\
        \x20 - { name: b, participant: p, action: do, forEach: \"${ input.list }\", input: { of: \"${ item }\" }, compensation: { action: undo } }\n";
    let figures = Figures { ended: vec![("COMPLETED".to_owned(), 1_000)], ..Figures::default() };
    for (source, why) in [
        (many.as_str(), "the order: 15 steps come before the pivot, and orders of 14 are compared"),
        (list, "the order: steps that are done for each item of a list are not compared"),
    ] {
        let advice = advise(&read(source).definition.expect("no errors"), &figures);
        assert!(advice.moves.is_empty() && advice.silent.contains(&why.to_owned()), "{:?}", advice.silent);
    }
}
