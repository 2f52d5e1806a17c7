//! Right histories, and wrong ones that must be refused, as data.

use crate::{History, Promise, changes::Changes, durability, linear, lists, order, watches};

/// A history in which all is well.
fn right(text: &str) {
    if let Err(violation) = History::parse(text).check() {
        panic!("{violation}");
    }
}

/// A history that breaks a promise: its own checker must find that, and say so in these words.
fn wrong(promise: Promise, text: &str, words: &[&str]) {
    let history = History::parse(text);
    assert!(history.check().is_err(), "the whole check is content with {text}");
    let found = Changes::gather(&history).and_then(|changes| match promise {
        Promise::OneChangePerRevision => Ok(()),
        Promise::Durable => durability::check(&history, &changes),
        Promise::StrictlySerializable => order::check(&history, &changes),
        Promise::ExactLists => lists::check(&history, &changes),
        Promise::CompleteWatches => watches::check(&history, &changes),
        Promise::Linearizable => linear::check(&history, &changes),
    });
    let violation = found.expect_err("its own check is content");
    assert_eq!(violation.promise, promise, "{violation}");
    let told = violation.to_string();
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

#[test]
fn a_quiet_history_is_right() {
    right(
        "1 0-10 create a=x -> @1
         1 20-30 get a -> x@1
         2 40-50 replace a=y at 1 -> @2
         2 60-70 delete a at 2 -> @3
         1 80-90 get a -> nothing
         1 91-95 delete a anyway -> unchanged
         1 96-99 list * -> @3
         watch w *: from 0, added a=x@1, modified a=y@2, deleted a=y@3, through 3
         last @3",
    );
}

#[test]
fn simultaneous_operations_may_take_any_order() {
    right(
        "1 0-100 create a=x -> @1
         2 10-20 get a -> nothing
         3 30-40 get a -> x@1
         4 5-99 create a=y -> refused x@1
         5 0-100 list * -> @0
         last @1 a=x@1",
    );
    right(
        "1 0-50 put a=x -> @2
         2 0-50 put a=y -> @1
         3 60-70 get a -> x@2
         last @2 a=x@2",
    );
}

#[test]
fn an_unknown_write_may_have_happened_or_not_or_late() {
    right(
        "1 0-10 put a=x -> unknown
         2 20-30 get a -> nothing
         2 40-50 get a -> x@1
         last @1 a=x@1",
    );
    right(
        "1 0-10 put a=x -> unknown
         2 20-30 get a -> nothing
         last @0",
    );
    // Nobody saw the unknown object, but somebody was refused because of it.
    right(
        "1 0-10 create a=x -> unknown
         2 20-30 create a=y -> refused something
         3 20-30 delete a -> unknown
         2 40-50 create a=z -> @3
         last @3 a=z@3",
    );
}

#[test]
fn an_unknown_write_may_be_seen_by_a_refusal_only() {
    right(
        "1 0-10 put a=x -> unknown
         2 5-20 create a=y -> refused x@1
         2 30-40 put a=z -> @2",
    );
}

#[test]
fn deletions_whose_answers_tell_no_revision_are_understood() {
    right(
        "1 0-10 create a=x -> @1
         1 20-30 delete a -> done
         2 25-50 create a=y -> @3
         3 60-70 delete a -> refused nothing
         2 51-55 delete a -> done
         3 80-90 list * -> @4
         watch w *: from 0, added a=x@1, deleted a=x@2, added a=y@3, bookmark 3, from 3, deleted a=y@4
         last @4",
    );
}

#[test]
fn a_stale_read_is_refused() {
    let stale = "1 0-10 put a=x -> @1
         1 20-30 put a=y -> @2
         2 40-50 get a -> x@1
         last @2 a=y@2";
    let words = ["client 2, from 40 to 50: get a -> x at revision 1"];
    wrong(Promise::Linearizable, stale, &words);
    wrong(Promise::StrictlySerializable, stale, &words);
    // A second reader goes back behind what the first was shown, though the write has not returned.
    let backwards = "1 0-10 put a=x -> @1
         1 20-100 put a=y -> @2
         2 30-40 get a -> y@2
         3 50-60 get a -> x@1
         last @2 a=y@2";
    wrong(Promise::Linearizable, backwards, &["then a is y at revision 2"]);
    let missing = "1 0-10 put a=x -> @1
         2 40-50 get a -> nothing
         last @1 a=x@1";
    wrong(Promise::Linearizable, missing, &["nothing there"]);
    wrong(Promise::StrictlySerializable, missing, &["misses a=x"]);
}

#[test]
fn a_stale_read_of_another_key_is_refused() {
    // Each key alone is in order; together they are not.
    wrong(
        Promise::StrictlySerializable,
        "1 0-100 put a=x -> @1
         2 0-100 put b=y -> @2
         3 10-20 get b -> y@2
         3 30-40 get a -> nothing
         last @2 a=x@1 b=y@2",
        &["misses a=x at revision 1", "get b -> y at revision 2"],
    );
    wrong(
        Promise::StrictlySerializable,
        "1 0-10 put a=x -> @2
         2 20-30 put b=y -> @1
         last @2 a=x@2 b=y@1",
        &["revision 2 was known before a write that has revision 1"],
    );
    wrong(
        Promise::StrictlySerializable,
        "1 0-10 put a=x -> @2
         2 20-30 put b=y -> unknown
         last @2 a=x@2 b=y@1",
        &["came to have revision 1"],
    );
    wrong(
        Promise::StrictlySerializable,
        "1 0-10 put a=x -> @2
         2 20-30 list * -> @1
         last @2 a=x@2",
        &["revision 2 was known before a list that is of revision 1"],
    );
}

#[test]
fn a_lost_update_is_refused() {
    // Both replaced the same state, so one of them did not see the other.
    let lost = "1 0-10 create a=x -> @1
         1 20-30 replace a=y at 1 -> @2
         2 20-30 replace a=z at 1 -> @3
         last @3 a=z@3";
    let words = [
        "then a is y at revision 2, which does not fit",
        "put a=z if it is at revision 1",
    ];
    wrong(Promise::Linearizable, lost, &words);
    let both_created = "1 0-10 create a=x -> @1
         2 0-10 create a=y -> @2
         last @2 a=y@2";
    wrong(Promise::Linearizable, both_created, &["if it is absent"]);
}

#[test]
fn a_refusal_without_cause_is_refused() {
    wrong(
        Promise::Linearizable,
        "1 0-10 create a=x -> @1
         1 20-30 replace a=y at 1 -> refused
         last @1 a=x@1",
        &["then a is x at revision 1, which does not fit"],
    );
    wrong(
        Promise::Linearizable,
        "1 0-10 create a=x -> refused something
         last @0",
        &["then a is absent"],
    );
}

#[test]
fn a_lost_write_is_refused() {
    let rolled_back = "1 0-10 put a=x -> @1
         1 20-30 put a=y -> @2
         last @3 a=x@1";
    wrong(Promise::Durable, rolled_back, &["a is x at revision 1 again"]);
    wrong(Promise::Linearizable, rolled_back, &["the last look"]);
    let gone = "1 0-10 put a=x -> @1
         last @3";
    wrong(Promise::Durable, gone, &["put a=x -> done at revision 1"]);
    wrong(Promise::Linearizable, gone, &["the last look -> nothing there"]);
    // That an earlier deletion came later explains nothing.
    wrong(
        Promise::Durable,
        "1 0-10 put a=w -> @1
         1 11-12 delete a -> done
         1 20-30 put a=x -> @3
         last @3",
        &["a is not there"],
    );
    wrong(
        Promise::Durable,
        "1 0-10 put a=x -> @1
         1 20-30 delete a -> @2
         last @3 a=x@1",
        &["an acknowledged deletion was lost"],
    );
    wrong(
        Promise::StrictlySerializable,
        "1 0-10 put a=x -> @4
         1 20-30 delete a -> @5
         last @4",
        &["the last look, at revision 4, is older"],
    );
}

#[test]
fn a_write_that_was_done_twice_is_refused() {
    wrong(
        Promise::OneChangePerRevision,
        "1 0-10 put a=x -> @1
         2 20-30 get a -> x@2
         last @2 a=x@2",
        &["asked for once and done at revisions 1 and 2"],
    );
    wrong(
        Promise::OneChangePerRevision,
        "1 0-10 put a=x -> @1
         1 20-30 delete a -> @2
         watch w *: from 0, added a=x@1, deleted a=x@2, deleted a=x@3
         last @3",
        &["removed 2 times, asked for 1 times"],
    );
}

#[test]
fn what_nobody_wrote_or_what_failed_is_refused() {
    wrong(
        Promise::OneChangePerRevision,
        "1 0-10 get a -> x@1",
        &["nobody wrote it"],
    );
    wrong(
        Promise::OneChangePerRevision,
        "1 0-10 put a=x -> failed
         1 20-30 get a -> x@1",
        &["although its write was refused or has failed"],
    );
    wrong(
        Promise::OneChangePerRevision,
        "1 0-10 put a=x -> @1
         2 0-10 put b=y -> @1",
        &["two changes have revision 1", "put a=x", "put b=y"],
    );
}

#[test]
fn a_list_that_is_not_of_its_revision_is_refused() {
    let writes = "1 0-10 put a=x -> @1
         1 20-30 put b=y -> @2
         1 40-50 put a=z -> @3
         1 60-70 delete b -> @4
         ";
    for (list, words) in [
        (
            "2 0-100 list * -> @3 a=x@1 b=y@2",
            "shows a=x at revision 1, which was changed at 3",
        ),
        ("2 0-100 list * -> @2 a=x@1", "does not show b=y at revision 2"),
        ("2 0-100 list * -> @4 a=z@3 b=y@2", "which was changed at 4"),
        ("2 0-100 list * -> @1 a=x@1 b=y@2", "shows b=y at revision 2"),
        ("watch w *: listed @3 a=z@3", "watcher w: listed at revision 3"),
        ("last @4 a=z@3 b=y@2", "the last look"),
    ] {
        wrong(Promise::ExactLists, &format!("{writes}{list}"), &[words]);
    }
    right(&format!("{writes}2 0-100 list b* -> @3 b=y@2\n last @4 a=z@3"));
}

#[test]
fn a_watch_that_skips_repeats_or_reorders_is_refused() {
    let writes = "1 0-10 put a=x -> @1
         1 20-30 put b=y -> @2
         1 40-50 put a=z -> @3
         last @3 a=z@3 b=y@2
         ";
    let all = "added a=x@1, added b=y@2, modified a=z@3";
    right(&format!(
        "{writes}watch w *: from 0, {all}, bookmark 5, from 5, through 5"
    ));
    right(&format!(
        "{writes}watch w b*: from 0, added b=y@2, bookmark 3, through 3"
    ));
    right(&format!(
        "{writes}watch w *: from 0, added a=x@1, listed @3 a=z@3 b=y@2, bookmark 3, through 3"
    ));
    for (stream, words) in [
        (
            "from 0, added a=x@1, modified a=z@3",
            "the change at revision 2 was left out",
        ),
        (
            "from 0, added a=x@1, bookmark 2",
            "the change at revision 2 was left out",
        ),
        ("from 0, added a=x@1, added a=x@1", "not newer than revision 1"),
        ("from 0, added a=x@1, modified a=z@3, added b=y@2", "left out"),
        ("listed @1 a=x@1, from 1, modified a=z@3", "left out"),
        (
            "from 0, added a=x@1, bookmark 1, from 2",
            "had seen all up to revision 1",
        ),
        (
            "from 0, added a=x@1, through 3",
            "the change at revision 2 never arrived",
        ),
        (
            "from 0, added a=x@1, added b=y@2, added a=z@3",
            "does not fit: a=x was there",
        ),
        (
            "from 0, added a=x@1, added b=y@2, bookmark 2, listed @1 a=x@1",
            "older",
        ),
    ] {
        wrong(
            Promise::CompleteWatches,
            &format!("{writes}watch w *: {stream}"),
            &[words, "watcher w"],
        );
    }
    wrong(
        Promise::CompleteWatches,
        "1 0-10 put a=x -> @1
         1 20-30 put a=y -> @2
         1 40-50 delete a -> @3
         watch w *: from 0, added a=x@1, modified a=y@2, deleted a=x@3
         last @3",
        &["does not fit: a=y was there"],
    );
}

#[test]
fn what_one_watcher_missed_is_known_from_another() {
    wrong(
        Promise::CompleteWatches,
        "1 0-10 put a=x -> unknown
         1 20-30 put a=y -> @2
         watch v *: from 0, modified a=y@2
         watch w *: from 0, added a=x@1, modified a=y@2
         last @2 a=y@2",
        &[
            "watcher v",
            "the change at revision 1 was left out",
            "watcher w: Added a=x",
        ],
    );
}

/// A busy, right history of one key with many unknown outcomes, and the same with one stale read near its end.
fn busy(operations: u64, is_stale: bool) -> String {
    let mut text = String::new();
    let mut revision = 0;
    for number in 0..operations {
        let (begin, end) = (number * 10, number * 10 + 35);
        let client = number % 4;
        let line = match number % 7 {
            0 => format!("{client} {begin}-{end} replace a=u{number} at {revision} -> unknown"),
            1 => format!("{client} {begin}-{end} replace a=v{number} at 1 -> refused"),
            2 => format!("{client} {begin}-{end} put a=w{number} -> unknown"),
            3 => format!("{client} {begin}-{end} delete a -> unknown"),
            4 => format!("{client} {begin}-{end} create a=c{number} -> refused something"),
            5 => {
                revision += 1;
                format!("{client} {begin}-{end} put a=x{number} -> @{revision}")
            }
            _ => format!("{client} {begin}-{end} get a -> x{}@{revision}", number - 1),
        };
        text += &format!("{line}\n");
    }
    if is_stale {
        let late = operations * 10 + 100;
        text += &format!("9 {late}-{} get a -> x5@1\n", late + 10);
    }
    text
}

#[test]
fn a_long_history_with_many_unknown_outcomes_is_decided() {
    right(&busy(20_000, false));
    wrong(
        Promise::Linearizable,
        &busy(4_000, true),
        &["client 9", "get a -> x5 at revision 1"],
    );
}
