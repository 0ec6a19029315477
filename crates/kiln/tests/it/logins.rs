//! What a task finds of the tasks before it.

use crate::harness::Kiln;

#[test]
fn each_task_sees_what_a_fresh_login_would_and_outlives_restarts_of_sshd_and_the_network() {
    let ended = Kiln::new()
        .run(
            r#"
tasks:
- change: |
    sudo groupadd farmers
    sudo usermod -aG farmers build
    echo FRESH=environment | sudo tee -a /etc/environment
    while sleep 0.1; do echo beat; done | tee -a /tmp/beats &
- changed: |
    id -nG | grep -w farmers
    touch grain && chgrp farmers grain
    echo "fresh=$FRESH"
    beats=$(wc -l </tmp/beats)
    until [ "$(wc -l </tmp/beats)" -gt "$beats" ]; do sleep 0.1; done
    sudo systemctl restart ssh
    echo after the restart
- restarted: |
    echo logged in again
    sudo setsid sh -c 'ip link set eth0 down; sleep 1; ip link set eth0 up; touch /tmp/up' &
    until [ "$(cat /sys/class/net/eth0/operstate)" = down ]; do sleep 0.05; done
- reconnected: |
    until [ -e /tmp/up ]; do sleep 0.1; done
    echo the network is back
"#,
        )
        .expect_success();
    ended
        .expect_line("changed", "fresh=environment")
        .expect_line("changed", "after the restart")
        .expect_line("restarted", "logged in again")
        .expect_line("reconnected", "the network is back");
}
