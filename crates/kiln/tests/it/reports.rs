//! What a run says, and whom it blames.

use crate::harness::Kiln;

#[test]
fn what_fails_because_the_hosts_disk_is_full_is_the_hosts_fault() {
    let kiln = Kiln::dummy();
    let ended = kiln.run("tasks:\n- one: full; fail 1\n").expect_status(3);
    ended.expect_stdout("the host had no disk space left");
    kiln.run("tasks:\n- one: full\n").expect_success();
}

#[test]
fn five_thousand_packages_are_installed_and_an_endless_name_is_refused() {
    let kiln = Kiln::dummy();
    let names: Vec<String> = (0..5000).map(|n| format!("package-{n:05}")).collect();
    let manifest = format!("packages: [{}]\ntasks:\n- one: echo\n", names.join(", "));
    let ended = kiln.run(&manifest).expect_success();
    for name in [&names[0], &names[4999]] {
        ended.expect_log(&format!("installed {name}\n"));
    }
    let manifest = format!("packages: [{}]\ntasks:\n- one: echo\n", "x".repeat(5000));
    kiln.run(&manifest)
        .expect_status(1)
        .expect_stdout("prepare: a package's name has 5000 bytes and may have 4096");
}

#[test]
fn output_that_looks_like_kilns_own_is_shown() {
    let kiln = Kiln::dummy();
    let ended = kiln
        .run("tasks:\n- one: echo '[kiln] task one'; echo '[kiln] liar'\n")
        .expect_success();
    let said = ended.stdout();
    // Once for the job's log, once for what the task wrote.
    assert_eq!(said.matches("[kiln] task one\n").count(), 2, "{said}");
    assert!(said.contains("\n[kiln] liar\n"), "{said}");
}
