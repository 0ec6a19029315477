//! Logs and artifacts, in a directory and in an object store: most tests run on both.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod artifacts;
mod directory;
mod faults;
mod frames;
mod logs;
mod packed;
mod place;
mod proxy;
mod s3;

/// One list of tests, run in a directory and in an object store.
macro_rules! on_both {
    ($($module:ident: $($test:ident,)*;)*) => {
        on_both!(@ directory, $($module: $($test,)*;)*);
        on_both!(@ s3, $($module: $($test,)*;)*);
    };
    (@ $place:ident, $($module:ident: $($test:ident,)*;)*) => {
        mod $place {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let place = crate::place::Place::$place().await;
                    crate::$module::$test(&place).await;
                })*
            })*
        }
    };
}

mod on {
    on_both! {
        logs:
            an_append_is_where_it_says_and_is_read_in_parts,
            a_repeated_append_is_the_same_append,
            an_append_behind_the_end_or_of_other_bytes_is_told_where_the_log_ends,
            no_bytes_ask_where_the_log_ends,
            a_line_of_the_servers_is_a_line_of_its_own,
            a_log_is_begun_once_and_only_under_its_lease,
            a_last_line_is_for_a_log_that_has_begun,
            lines_before_a_commit_are_there_with_it,
            a_log_that_has_not_begun_takes_nothing,
            who_watches_is_told_of_what_is_stored,
            nothing_comes_after_what_the_server_said_when_it_ended_the_lease,
            a_name_never_leads_elsewhere,
            tasks_and_jobs_have_logs_of_their_own,
            an_append_goes_on_when_nobody_waits_for_it,
            any_part_of_a_long_log_is_read,
            overlapping_appends_in_any_order_are_the_stream,
        ;
        packed:
            a_packed_log_is_read_as_before_and_takes_less_room,
            a_line_of_a_packed_log_is_found_without_reading_what_is_before,
            who_reads_while_a_log_is_packed_reads_on,
            many_read_while_two_pack_the_same_log,
            nothing_is_added_to_a_packed_log,
            a_log_that_packing_does_not_make_smaller_stays_as_it_is,
            what_is_there_is_listed_and_removed,
            whose_all_this_is_is_written_once,
        ;
        artifacts:
            an_artifact_is_there_when_all_of_it_came,
            one_that_is_not_what_was_announced_leaves_nothing,
            one_that_replaces_another_and_fails_leaves_the_other,
            a_part_of_one_is_read,
            one_that_comes_in_parts_is_whole_or_not_there,
            an_empty_one_is_one,
            the_place_can_be_written,
        ;
    }
}
