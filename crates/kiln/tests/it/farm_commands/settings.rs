//! The settings: flag over environment over file over default.

use crate::harness::Kiln;

#[test]
fn a_flag_is_stronger_than_a_variable_that_than_the_file_and_that_than_the_default() {
    let kiln = Kiln::without_images();
    kiln.file(
        "kiln.toml",
        "slots = 3\nsite-name = \"of the file\"\nshare-cap = 5\nlabel = [\"a=1\", \"b=2\"]\n",
    );
    let show = kiln
        .kiln([
            "config",
            "show",
            "--config",
            "kiln.toml",
            "--",
            "--slots",
            "7",
        ])
        .env("KILN_SLOTS", "6")
        .env("KILN_SITE_NAME", "of the variable")
        .expect_success();
    show.expect_stdout("slots = 7 # flag")
        .expect_stdout("site-name = \"of the variable\" # KILN_SITE_NAME")
        .expect_stdout("share-cap = 5 # kiln.toml line 3")
        .expect_stdout("label = [\"a=1\", \"b=2\"] # kiln.toml line 4")
        .expect_stdout("# listen = \"127.0.0.1:8080\" # default");
}

#[test]
fn what_show_prints_is_a_file_that_says_the_same() {
    let kiln = Kiln::without_images();
    let words = [
        "config",
        "show",
        "--",
        "--slots",
        "7",
        "--label",
        "a=1",
        "--no-worker",
        "--job-timeout",
        "1h",
    ];
    let first = kiln.kiln(words).expect_success().stdout();
    kiln.file("again.toml", &first);
    let second = kiln
        .kiln(["config", "show", "--config", "again.toml"])
        .expect_success()
        .stdout();
    let values = |text: &str| -> Vec<String> {
        let said = text.lines().filter(|line| !line.starts_with('#'));
        said.map(|line| line.split(" # ").next().expect("a value").to_owned())
            .collect()
    };
    assert_eq!(values(&first), values(&second));
    assert_eq!(values(&first).len(), 4);
}

#[test]
fn no_password_is_shown_and_none_is_repeated_in_a_mistake() {
    let kiln = Kiln::without_images();
    let shown = kiln
        .kiln(["config", "show"])
        .env("KILN_DATABASE", "postgres://kiln:hunter2@db/kiln")
        .expect_success();
    assert!(!shown.stdout().contains("hunter2"), "{shown}");
    kiln.file(
        "kiln.toml",
        "objects = \"s3://b\"\ns3-endpoint = \"https://s3.example.org\"\ns3-access-key = \"a\"\n",
    );
    let shown = kiln
        .kiln(["config", "show", "--config", "kiln.toml"])
        .env("KILN_S3_SECRET_KEY", "hunter2")
        .expect_success();
    assert!(!shown.stdout().contains("hunter2"), "{shown}");
    let shown = kiln
        .kiln(["config", "show", "--of", "worker"])
        .env("KILN_PROXY", "http://kiln:hunter2@proxy:3128")
        .expect_success();
    assert!(!shown.stdout().contains("hunter2"), "{shown}");
    let wrong = kiln
        .kiln(["config", "check"])
        .env("KILN_DATABASE", "mysql://kiln:hunter2@db/kiln")
        .expect_status(2);
    assert!(!wrong.stderr().contains("hunter2"), "{wrong}");
    wrong.expect_stderr("KILN_DATABASE: this is no URL of a database");
}

#[test]
fn a_mistake_in_a_file_is_named_with_file_line_and_what_was_meant() {
    let kiln = Kiln::without_images();
    for (text, why) in [
        (
            "\nslotz = 1\n",
            "kiln.toml: line 2: there is no setting `slotz`; did you mean `slots`?",
        ),
        (
            "slots = 0\n",
            "kiln.toml: line 1: slots: `0` is no number from 1 to 1000",
        ),
        ("listen = \"0.0.0.0:80\"\n", "others can reach 0.0.0.0:80"),
        ("tls-cert = \"x\"\n", "--tls-key is missing"),
        ("label = [\"arch=x\"]\n", "the manifest's own field says it"),
        ("= 1\n", "kiln.toml: line 1: "),
    ] {
        kiln.file("kiln.toml", text);
        kiln.kiln(["config", "check", "--config", "kiln.toml"])
            .expect_status(2)
            .expect_stderr(why);
        kiln.kiln(["serve", "--no-worker", "--config", "kiln.toml"])
            .expect_status(2)
            .expect_stderr(why);
    }
    kiln.file("kiln.toml", "listen = \"0.0.0.0:80\"\ninsecure = true\n");
    kiln.kiln(["config", "check", "--config", "kiln.toml"])
        .expect_success();
}

#[test]
fn sourcehuts_file_is_taken_and_what_of_it_is_not_used_is_listed() {
    let kiln = Kiln::without_images();
    kiln.file(
        "config.ini",
        "[sr.ht]\nsite-name=our forge\n[mail]\nsmtp-host=mail\n[builds.sr.ht]\norigin=https://builds.example\n\
         connection-string=postgresql://sr:ht@db/builds\nimages=/var/lib/images\nwhatever=1\n",
    );
    let check = kiln
        .kiln(["config", "check", "--config", "config.ini"])
        .expect_success();
    check
        .expect_stderr("[mail] smtp-host is for mail, which this kiln does not send yet")
        .expect_stderr("[builds.sr.ht] whatever is not known");
    let show = kiln
        .kiln(["config", "show", "--config", "config.ini"])
        .expect_success();
    show.expect_stdout("origin = \"https://builds.example\" # config.ini [builds.sr.ht] origin")
        .expect_stdout("database = \"postgres://sr:…@db/builds\"")
        .expect_stdout("images = \"/var/lib/images\"");
    let worker = kiln
        .kiln(["config", "show", "--of", "worker", "--config", "config.ini"])
        .expect_success();
    worker.expect_stdout("images = \"/var/lib/images\"");
}

#[test]
fn a_worker_needs_a_server_and_a_token() {
    let kiln = Kiln::without_images();
    kiln.kiln(["worker"])
        .expect_status(2)
        .expect_stderr("kiln worker needs --server URL|unix:PATH (or KILN_SERVER");
    kiln.kiln(["worker", "--server", "http://localhost:1"])
        .expect_status(2)
        .expect_stderr("needs --token-file");
    let wrong = kiln
        .kiln(["worker", "--server", "builds.example", "--token-file", "x"])
        .expect_status(2);
    wrong.expect_stderr("`builds.example` is no URL");
}
