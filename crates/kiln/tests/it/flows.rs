//! A guest can't use up the host's ports and descriptors.

use crate::{
    escape::users::User,
    internet::{Internet, WORLD},
};

/// Opens connections until it has tried all, keeps them, and then lets go.
/// Those that were answered say so: a greeting comes from the world.
const TRY: &str = r#"tasks:
- open: |
    cat >many.pl <<'END'
    use strict; use warnings; use Socket; use Fcntl; use IO::Select;
    my ($tries, $world) = @ARGV;
    my $waiting = IO::Select->new;
    my ($refused, @kept) = 0;
    for my $number (1 .. $tries) {
        socket my $socket, AF_INET, SOCK_STREAM, 0 or die "socket: $!";
        fcntl $socket, F_SETFL, O_NONBLOCK;
        connect $socket, pack_sockaddr_in(7000 + $number % 90, inet_aton($world));
        $waiting->add($socket);
    }
    while ($waiting->count and my @ready = $waiting->can_read(15)) {
        for my $socket (@ready) {
            $waiting->remove($socket);
            if (sysread $socket, my $said, 100) { push @kept, $socket } else { $refused++ }
        }
    }
    printf "opened %d\nrefused %d\n", scalar @kept, $refused;
    print gethostbyname("world.test") ? "names are found\n" : "no names\n";
    END
    sudo bash -c "ulimit -n 8192; perl many.pl 1300 WORLD"
    for attempt in 1 2 3 4 5; do
        timeout 10 head -n 1 </dev/tcp/WORLD/7000 && break
        sleep 1
    done
"#;

fn number(log: &str, what: &str) -> usize {
    let line = log.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no line `{what} N` in {log}"))
}

#[test]
fn too_many_connections_are_refused_and_an_ordinary_one_works_later() {
    let internet = Internet::new();
    // Whoever has a template already.
    let user = User::root().unwrap_or_else(|_| User::ordinary());
    let ended = user
        .run(&internet, "flows", &TRY.replace("WORLD", WORLD))
        .takes_turns(true)
        .expect_success();
    let log = ended.task_log("open");
    let (opened, refused) = (number(&log, "opened "), number(&log, "refused "));
    assert!(
        (900..=1024).contains(&opened),
        "{opened} were opened: {log}"
    );
    assert!(refused > 0, "{log}");
    ended.expect_line("open", "names are found");
    ended.expect_line("open", "this is world");
}
