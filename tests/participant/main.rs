//! The participant SDK against a scripted broker, on SQLite and on PostgreSQL (`AMENDS_TEST_STORE`: an admin URL).

mod broker;
mod databases;
mod music_corp;
mod rig;
mod rules;
mod runner;
mod scripted;

/// Makes each claim a test on each database.
macro_rules! on_every_database {
    ($($module:ident :: { $($claim:ident),+ $(,)? })+) => {
        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $claim() {
                    crate::$module::$claim::<sqlx::Sqlite>().await;
                }
            )+)+
        }
        mod on_postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $claim() {
                    crate::$module::$claim::<sqlx::Postgres>().await;
                }
            )+)+
        }
    };
}

on_every_database! {
    broker::{
        a_service_that_stops_and_starts_answers_every_command_once,
    }
    rules::{
        an_action_takes_effect_and_its_output_is_the_reply,
        a_compensation_whose_action_never_ran_leaves_a_tombstone,
        an_action_after_its_compensation_is_refused,
        a_duplicate_gets_the_stored_reply_under_its_own_token,
        a_duplicate_is_answered_to_the_queue_it_names,
        a_duplicate_compensation_has_one_effect,
        a_compensation_waits_for_its_action_in_progress,
        a_compensation_that_waited_for_a_crash_leaves_a_tombstone,
        a_compensation_racing_its_action_never_leaves_half,
        a_hundred_deliveries_at_once_have_one_effect,
        a_refusal_is_recorded_and_has_no_effect,
        a_refusal_out_of_a_broken_transaction_is_recorded,
        the_compensation_of_a_refused_action_has_nothing_to_undo,
        a_retry_is_not_recorded,
        a_database_error_is_a_technical_retry_never_a_refusal,
        a_transaction_that_gives_way_is_done_again_at_once,
        a_crash_before_the_commit_leaves_nothing_and_the_next_attempt_works,
        an_unknown_action_is_refused,
        an_input_that_cannot_be_read_is_refused,
        an_output_that_no_reply_can_hold_is_rolled_back,
        another_generation_of_a_refused_action_runs,
        old_rows_are_purged_and_young_ones_kept,
        the_inbox_can_be_migrated_again_and_at_once,
        a_service_that_starts_does_not_wait_for_handlers_elsewhere,
        the_inbox_refuses_rows_that_make_no_sense,
    }
    runner::{
        a_command_is_acknowledged_only_after_its_reply_is_confirmed,
        a_reply_of_unknown_fate_is_published_again,
        a_reply_that_no_queue_takes_sends_its_command_back,
        a_crash_after_the_commit_and_before_the_reply_loses_nothing,
        a_stop_with_the_broker_away_gives_the_command_back,
        a_stop_takes_nothing_new_and_finishes_what_runs,
        no_more_handlers_run_at_once_than_allowed,
        heartbeats_go_out_while_a_handler_runs,
        a_handler_can_send_a_heartbeat,
        a_message_that_is_no_command_goes_to_the_dead_letters,
        a_database_that_is_away_is_a_technical_retry,
        work_kept_beyond_its_handler_is_rolled_back,
    }
}
