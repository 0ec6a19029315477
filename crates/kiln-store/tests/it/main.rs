//! The store's rules, on every engine: each test runs in SQLite's memory, on a SQLite
//! file and on PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod chunks;
mod farm;
mod groups;
mod jobs;
mod keep;
mod leases;
mod locks;
mod open;
mod outages;
mod people;
mod queue;
mod restored;
mod roles;
mod storm;

/// One list of tests, run on every engine.
macro_rules! on_every_engine {
    ($($module:ident: $($test:ident,)*;)*) => {
        on_every_engine!(@ memory, $($module: $($test,)*;)*);
        on_every_engine!(@ sqlite, $($module: $($test,)*;)*);
        on_every_engine!(@ postgres, $($module: $($test,)*;)*);
    };
    (@ $engine:ident, $($module:ident: $($test:ident,)*;)*) => {
        mod $engine {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let farm = crate::farm::Farm::$engine().await;
                    crate::$module::$test(&farm).await;
                    farm.agrees_with_itself().await;
                })*
            })*
        }
    };
}

on_every_engine! {
    restored:
        no_number_that_may_have_been_given_is_given_again,
        what_ran_when_the_copy_was_made_has_ended_or_waits_again,
    ;
    people:
        a_name_is_taken_once,
        a_token_opens_what_it_was_made_for,
        a_token_ends_when_it_should_or_is_taken_back,
        a_worker_whose_token_was_taken_back_leaves_its_name,
        a_worker_can_be_given_another_token,
        a_name_with_a_nul_is_refused_or_kept_as_it_is,
    ;
    jobs:
        a_job_goes_from_submit_to_success,
        a_submission_with_the_same_key_is_the_same_job,
        the_same_key_for_another_job_is_refused,
        a_pending_job_waits_for_its_start,
        a_cancel_ends_a_job_in_every_state_before_its_end,
        a_job_ends_once,
        the_end_of_a_job_ends_its_tasks,
        a_task_goes_only_where_the_diagram_leads,
        pages_of_jobs_are_complete_and_newest_first,
        who_sees_a_job_can_be_changed,
        sources_artifacts_and_the_image_are_kept,
        the_largest_texts_and_strange_characters_come_back_as_they_were,
    ;
    chunks:
        a_log_has_its_first_line_with_the_job_that_runs,
        a_piece_is_added_where_the_log_ends_and_nowhere_else,
        a_log_is_begun_once_and_only_under_its_lease,
        why_an_attempt_ended_is_there_before_another_can_begin,
        why_the_farm_ended_a_job_is_said_in_all_logs_of_it_that_were_open,
        nothing_is_added_under_a_lease_that_ended_or_is_anothers,
        of_all_that_append_at_once_nobody_follows_the_servers_last_line,
        appends_do_not_wait_for_the_one_who_writes,
        any_appends_make_the_stream_that_was_sent,
    ;
    groups:
        a_group_starts_its_jobs_and_tells_of_its_end_once,
        a_job_is_in_one_group_of_its_owner,
    ;
    leases:
        every_report_is_refused_without_just_this_lease,
        every_report_may_be_repeated,
        no_task_runs_before_begun,
        a_lease_that_ran_out_is_alive_until_the_reaper_comes,
        a_reaper_that_stood_still_before_it_looked_ends_no_lease,
        many_sessions_renew_at_once_and_each_is_told_its_own,
        a_clock_that_was_put_back_keeps_no_lease_of_who_is_gone,
        who_missed_three_renewals_gets_jobs_when_it_is_seen_again,
        who_was_seen_before_a_clock_was_put_back_gets_jobs_when_it_is_seen_again,
        a_clock_that_is_behind_for_a_moment_makes_no_lease_shorter,
        a_lost_job_goes_back_until_it_was_lost_too_often,
        a_lost_job_that_has_begun_fails,
        what_is_a_minute_past_its_deadline_times_out,
        a_clock_that_was_put_forward_takes_no_time_from_jobs,
        a_reaper_with_nothing_to_do_waits_for_nobody,
        a_job_that_was_given_back_waits_again_with_the_reason,
        a_session_that_connects_again_learns_what_it_lost,
        a_session_is_one_workers_and_ends_once,
        leases_of_a_worker_that_was_taken_back_run_out,
        only_the_last_voice_of_a_session_makes_tokens_for_its_guests,
        a_guests_token_is_for_its_job_while_the_lease_lives,
    ;
    queue:
        a_long_queue_delays_another_share_by_one_turn,
        a_share_has_its_cap,
        what_a_share_gets_elsewhere_leaves_its_slot_to_another,
        a_share_has_only_so_many_kinds_of_jobs_queued,
        priority_comes_first_and_then_age,
        what_nobody_serves_blocks_nobody,
        a_lost_job_keeps_its_age,
        paused_draining_unwell_and_absent_workers_get_nothing,
        a_slot_is_given_once_and_capacity_holds,
        a_pass_gives_a_few_dozen_and_asks_for_another,
        a_job_is_given_only_after_what_comes_before,
        each_reason_to_wait_is_told,
        what_nobody_serves_for_a_week_is_cancelled,
        a_farm_that_was_off_cancels_nothing,
        heads_are_found_by_their_index,
        images_are_remembered,
    ;
    keep:
        a_job_is_to_be_packed_once_some_time_after_its_end,
        what_is_removed_is_garbage_and_no_row_refers_to_it,
        what_ended_longest_ago_is_the_oldest,
        who_keeps_too_much_loses_old_artifacts_and_then_old_logs,
        rows_that_nobody_needs_are_removed_after_a_while,
        a_duty_is_one_holders_until_it_is_over,
        a_farm_has_one_name,
        a_packed_log_takes_the_place_of_its_pieces_at_once,
    ;
    open:
        a_later_migration_leaves_the_rows,
        the_store_of_a_newer_kiln_is_refused,
    ;
    storm:
        whatever_happens_at_once_each_job_ends_once,
        many_submissions_with_one_key_are_one_job,
        of_many_at_once_only_what_is_wrong_is_refused,
        a_submitted_job_is_told_as_it_is_read_later,
        reports_that_come_together_are_taken_in_their_order,
        a_group_whose_jobs_end_at_once_ends_once,
        of_many_shares_those_with_the_next_turns_are_served,
        an_operation_that_is_dropped_midway_leaves_nothing_and_blocks_nobody,
    ;
}
