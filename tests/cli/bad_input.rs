//! What people get wrong, and what they are told: one clear message with the way out, and the right exit code.

use std::net::TcpListener;

use super::program::{Program, amends};

/// Compares what was said, with what differs from run to run made plain.
macro_rules! told {
    ($said:expr) => {
        insta::with_settings!({filters => vec![
            (r"/[^ `]*/\.tmp[A-Za-z0-9]+", "FOLDER"),
            (r"127\.0\.0\.1:[0-9]{4,5}", "127.0.0.1:PORT"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        ]}, { insta::assert_snapshot!($said) });
    };
}

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

#[test]
fn an_unknown_flag_is_told_with_the_one_meant() {
    told!(amends(&["sagas", "list", "--stat", "STUCK"]));
}

#[test]
fn an_unknown_command_is_told_with_the_one_meant() {
    told!(amends(&["sagas", "strat", "place-order"]));
}

#[test]
fn an_unknown_state_is_told_with_those_there_are() {
    told!(amends(&["sagas", "list", "--state", "STUK"]));
}

#[test]
fn an_id_that_is_none_is_refused() {
    told!(amends(&["sagas", "show", "42"]));
}

#[test]
fn an_operator_action_needs_a_reason() {
    told!(amends(&["sagas", "abandon", ID]));
}

#[test]
fn an_empty_reason_is_none() {
    told!(amends(&["sagas", "abandon", ID, "--reason", ""]));
}

#[test]
fn a_limit_out_of_range_is_refused() {
    told!(amends(&["sagas", "list", "--limit", "0"]));
}

#[test]
fn a_time_that_is_none_is_told_how_to_write_one() {
    told!(amends(&["sagas", "list", "--since", "yesterday"]));
}

#[test]
fn an_unknown_output_form_is_told_with_those_there_are() {
    told!(amends(&["sagas", "list", "--output", "xml"]));
}

#[test]
fn a_settings_file_that_is_not_there_is_named() {
    told!(amends(&["--config", "nowhere.toml", "stuck"]));
}

#[test]
fn a_settings_file_with_an_unknown_key_is_told_with_its_place() {
    let program = Program::new(&["stuck"]).file("amends.toml", "http = \"127.0.0.1:7070\"\nbrokr = \"in-process\"\n");
    told!(program.env("AMENDS_CONFIG", "amends.toml").run());
}

#[test]
fn a_settings_file_that_is_no_toml_is_told_with_its_place() {
    let program = Program::new(&["--config", "amends.toml", "stuck"]).file("amends.toml", "store = \n");
    told!(program.run());
}

#[test]
fn a_server_that_is_not_there_is_told_with_how_to_start_one() {
    // A port that was free a moment ago: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    told!(amends(&["stuck", "--url", &format!("http://127.0.0.1:{port}")]));
}

#[test]
fn a_server_address_that_is_none_is_told_how_to_write_one() {
    told!(amends(&["stuck", "--url", "localhost:7070"]));
}

#[test]
fn a_database_address_that_is_none_is_told_without_its_password() {
    let said = amends(&["migrate", "--store", "mysql://me:secret@db.example/amends"]);
    assert!(!said.to_string().contains("secret"), "{said}");
    told!(said);
}

#[test]
fn a_database_that_is_not_there_is_told_without_its_password() {
    let said = amends(&["migrate", "--store", "postgres://me:secret@127.0.0.1:1/amends"]);
    assert!(!said.to_string().contains("secret"), "{said}");
    assert_eq!(said.code, 1, "{said}");
}

#[test]
fn a_broker_address_that_is_none_is_told_without_its_password() {
    let said =
        amends(&["serve", "--http", "127.0.0.1:0", "--store", "sqlite://x.db", "--broker", "kafka://me:secret@b"]);
    assert!(!said.to_string().contains("secret"), "{said}");
    told!(said);
}

#[test]
fn a_port_in_use_is_told_with_the_setting_to_change() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    told!(amends(&["serve", "--http", &address, "--store", "sqlite://x.db"]));
}

#[test]
fn other_machines_are_not_let_in_without_tokens() {
    told!(amends(&["serve", "--http", "0.0.0.0:0", "--store", "sqlite://x.db"]));
}

#[test]
fn an_address_to_listen_on_that_is_none_is_refused() {
    told!(amends(&["serve", "--http", "7070"]));
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let program = Program::new(&["serve", "--http", "127.0.0.1:0", "--store", "sqlite://x.db"]);
    told!(program.env("AMENDS_LOG", "amends=loud").run());
}

#[test]
fn input_that_is_no_json_is_told_with_its_place() {
    told!(amends(&["sagas", "start", "place-order", "--input", "{\"orderId\": }"]));
}

#[test]
fn an_input_file_that_is_not_there_is_named() {
    told!(amends(&["sagas", "start", "place-order", "--input", "order.json"]));
}

#[test]
fn a_line_of_a_batch_that_is_wrong_is_named_before_anything_is_sent() {
    let program = Program::new(&["sagas", "start", "place-order", "--batch", "orders.jsonl"]);
    told!(program.file("orders.jsonl", "{\"input\": {}}\n{\"inptu\": {}}\n").run());
}

#[test]
fn a_definition_file_that_is_not_there_is_named() {
    told!(amends(&["definitions", "check", "nowhere.yaml"]));
}

#[test]
fn a_definition_with_errors_is_told_all_of_them() {
    let definition = "saga: place-order\nversion: 1\nsteps:\n  - name: pick\n    participant: warehouse\n    action: pick\n    \
                      after: [pikc]\n    compensation: none\n    retires: 3\n";
    let program = Program::new(&["definitions", "check", "order.yaml"]).file("order.yaml", definition);
    told!(program.run());
}

#[test]
fn a_definition_on_standard_input_is_checked() {
    let said = Program::new(&["definitions", "check", "-", "--output", "json"]).stdin("saga: [").run();
    assert_eq!(said.code, 1, "{said}");
    let document: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(document["items"][0]["valid"], false);
    assert_eq!(document["items"][0]["file"], "(standard input)");
}
