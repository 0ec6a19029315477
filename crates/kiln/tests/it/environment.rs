//! The variables of tasks.

use crate::harness::Kiln;

/// Each kind of value, and what a farm would grant or send.
const MANIFEST: &str = r#"
image: debian/bookworm
arch: x86_64
oauth: git.sr.ht/REPOSITORIES:RO
environment:
  QUOTES: it's "quoted" $HOME `id` \n
  LINES: |
    one
    two
  YES: true
  NUMBER: 42
  FLOAT: 3.10
  NOTHING: null
  LIST: [first, second one, $third]
  OVER: the manifest
triggers:
- action: email
  condition: failure
  to: Me <me@example.org>
tasks:
- print: |
    printf '%s\n' "quotes=$QUOTES" "lines=${LINES//$'\n'/;}" "yes=$YES" "number=$NUMBER" "float=$FLOAT"
    printf '%s\n' "nothing=[${NOTHING-unset}]" "list=${#LIST[@]}" "second=${LIST[1]}" "third=${LIST[2]}"
    printf '%s\n' "exported=$(env | grep -c ^LIST= || true)" "over=$OVER" "added=$ADDED"
    printf '%s\n' "ci=$CI_NAME" "job=$JOB_ID" "token=${OAUTH2_TOKEN-none}" "user=$USER" "pwd=$PWD"
    printf '%s\n' "stdin=$(wc -c)" "url=$JOB_URL" "mode=$(stat -c %a ~/.buildenv ~/.tasks/print | tr '\n' ' ')"
    echo 'export SHARED="by one task"' >>~/.buildenv
- next: |
    echo "shared=$SHARED"
"#;

#[test]
fn variables_reach_the_tasks_as_they_were_written() {
    let ended = Kiln::new()
        .run(MANIFEST)
        .args(["-e", "OVER=the command line", "-e", "ADDED=a=b c"])
        .stdin("nobody reads this")
        .expect_success();
    for line in [
        r#"quotes=it's "quoted" $HOME `id` \n"#,
        "lines=one;two;",
        "yes=true",
        "number=42",
        "float=3.10",
        "nothing=[]",
        "list=3",
        "second=second one",
        "third=$third",
        "exported=0",
        "over=the command line",
        "added=a=b c",
        "ci=sourcehut",
        "job=0",
        "token=none",
        "user=build",
        "pwd=/home/build",
        "stdin=0",
        "mode=755 755 ",
        &format!("url={}", ended.folder().display()),
    ] {
        ended.expect_line("print", line);
    }
    ended.expect_line("next", "shared=by one task");
    ended
        .expect_log("warning: oauth: only a farm can grant a token")
        .expect_log("warning: triggers: only a farm sends them");
}
