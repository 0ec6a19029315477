//! The helper's side: two stages of the kiln binary.
//!
//! 1. [`main`] leaves the host's namespaces. A process can't itself move into
//!    a new pid namespace, so it starts
//! 2. [`init_main`], pid 1 in there, which serves the control socket (its
//!    standard input) until that ends. When pid 1 exits, the kernel kills all
//!    other processes of the namespace: nothing inside can survive.
//!
//! Both are single-threaded and run before anything else of the binary does.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::FdFlags,
    process::{Pid, PidfdFlags, Resource, Signal, WaitOptions},
    thread::UnshareFlags,
};

use super::{
    FORBIDDEN, INIT_COMMAND, netlink,
    protocol::{self, Files, Numbered, Reply, Request},
    rlimits, root,
};
use crate::cgroup;

/// A loopback connection takes microseconds, unless its listener has stopped.
/// Meanwhile the end of the control socket would not be noticed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// The first stage. The helper's arguments: `full` or `none`, and the
/// directories of its cgroup.
#[must_use]
pub fn main(isolation: &str, cgroup: &[String]) -> ExitCode {
    let joined = leave_terminal().and_then(|()| join(cgroup));
    let made = joined.and_then(|()| match isolation {
        "full" => unshare(!cgroup.is_empty()),
        // Whatever is left behind inside becomes ours to end.
        _ => Ok(rustix::process::set_child_subreaper(Some(
            rustix::process::getpid(),
        ))?),
    });
    match made.and_then(|()| enter(isolation)) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            if is_forbidden(&error) {
                ExitCode::from(FORBIDDEN)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The second stage: pid 1 inside.
#[must_use]
pub fn init_main(isolation: &str) -> ExitCode {
    // Whichever stage is killed, the other goes along.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    match serve(isolation == "full") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Keeps every descriptor beyond the standard three out of the programs that
/// this process will start. To be called before it opens any of its own, which
/// are closed on exec by themselves: whoever started us may have left open
/// what a guest must not see.
///
/// # Errors
/// When the process can't look at itself.
pub fn keep_descriptors_private() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(number @ 3..) = number {
            #[expect(unsafe_code, reason = "these descriptors have no owner in Rust")]
            // SAFETY: only its close-on-exec flag is set; the one that lists
            // the directory is closed by then or stays open until after.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            // EBADF is the one that lists the directory.
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the parent reads it from a pipe")]
fn complain(error: &io::Error) {
    eprintln!("{error}");
}

/// Without a controlling terminal nothing inside can type into ours, and its
/// Ctrl-C is for kiln alone.
fn leave_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    leave_keyring()
}

/// The keys of whoever started kiln (of its disks, of Kerberos) are not for
/// what runs inside: a session's keyring is inherited, whatever the namespace.
fn leave_keyring() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    #[expect(unsafe_code, reason = "rustix has no keyrings")]
    // SAFETY: keyctl(2) reads nothing of ours: the name is a null pointer.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::c_ulong::from(libc::KEYCTL_JOIN_SESSION_KEYRING),
            anonymous,
        )
    };
    if joined >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A kernel without keys; a container that may not use any.
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(context("a keyring of its own", &error)),
    }
}

/// Whether the host does not let us have namespaces, as opposed to a shortage.
fn is_forbidden(error: &io::Error) -> bool {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::INVAL) => true,
        Some(Errno::NOSPC) => ["user", "net", "mnt", "pid"].iter().any(|kind| {
            let limit = std::fs::read_to_string(format!("/proc/sys/user/max_{kind}_namespaces"));
            limit.is_ok_and(|limit| limit.trim() == "0")
        }),
        _ => false,
    }
}

fn enter(isolation: &str) -> io::Result<ExitCode> {
    let mut init = Command::new("/proc/self/exe")
        .args([INIT_COMMAND, isolation])
        .spawn()?;
    // Only init holds the control socket from here on, so that kiln sees its
    // end as soon as init is gone.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    init.wait()?;
    if isolation != "full" {
        kill_descendants();
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends what the process inside left: without a pid namespace nobody else does.
/// The children of a killed child become ours, hence the rounds.
fn kill_descendants() {
    const ROUNDS: usize = 1000;
    for _ in 0..ROUNDS {
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let pids = children
            .split_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        for pid in pids {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if rustix::process::wait(WaitOptions::empty()).is_err() {
            return;
        }
    }
}

/// Before anything else is started or apart from the host.
fn join(cgroup: &[String]) -> io::Result<()> {
    cgroup.iter().try_for_each(|dir| {
        // A refusal here is not the host's of namespaces.
        cgroup::join(Path::new(dir)).map_err(|error| io::Error::other(format!("cgroup: {error}")))
    })
}

/// `cgroup`: whether what is inside has one of its own, and shall not see where
/// on the host that is.
fn unshare(cgroup: bool) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWNET;
    if cgroup {
        flags |= UnshareFlags::NEWCGROUP;
    }
    #[expect(unsafe_code, reason = "rustix has no safe form")]
    // SAFETY: descriptors stay shared (no FILES), and this is the only thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

/// The process that was started inside.
struct Running {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
}

fn serve(isolated: bool) -> io::Result<()> {
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    let mut running: Option<Running> = None;
    loop {
        let mut interest = vec![PollFd::new(&socket, PollFlags::IN)];
        if let Some(running) = &running {
            interest.push(PollFd::new(&running.pidfd, PollFlags::IN));
        }
        // Orphans of the process inside become init's children; nobody tells
        // us when they end, so look now and then.
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut interest, Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let asked = interest.first().is_some_and(|fd| !fd.revents().is_empty());
        if let Some(status) = running
            .as_mut()
            .and_then(|running| ended(&mut running.child))
        {
            running = None;
            let exited = Numbered {
                number: 0,
                message: Reply::Exited { status },
            };
            protocol::send(socket, &exited, &[])?;
        }
        reap_orphans(running.as_ref());
        if asked && !answer(socket, isolated, &mut running)? {
            return Ok(());
        }
    }
}

fn ended(child: &mut Child) -> Option<u8> {
    let status = child.try_wait().ok().flatten()?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Some(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Reaps what `functions` left behind, but never the process itself, whose
/// status is still wanted.
fn reap_orphans(running: Option<&Running>) {
    if running.is_none() {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

/// Serves one request; `false` when kiln closed the socket.
fn answer(
    socket: BorrowedFd<'_>,
    isolated: bool,
    running: &mut Option<Running>,
) -> io::Result<bool> {
    let received = protocol::receive::<Numbered<Request>>(socket)?;
    let Some((Numbered { number, message }, fds)) = received else {
        if let Some(running) = running {
            // Without namespaces nobody else would.
            let _ = rustix::process::kill_process_group(running.pid, Signal::KILL);
        }
        return Ok(false);
    };
    let result = match message {
        Request::Setup { rules, files } => {
            let rules = fds.into_iter().next().filter(|_| rules);
            set_up(isolated, rules, &files).map(|pid| (Reply::Ready { pid }, None))
        }
        Request::Spawn {
            argv,
            env,
            cwd,
            stdout,
            stderr,
            limits,
        } => {
            let limits = limits.words(isolated);
            let argv = harmless(isolated, argv);
            spawn(&argv, env, &cwd, (stdout, stderr), fds, limits).map(|started| {
                *running = Some(started);
                (Reply::Done, None)
            })
        }
        Request::Connect { address } => TcpStream::connect_timeout(&address, CONNECT_DEADLINE)
            .map(|stream| (Reply::Done, Some(OwnedFd::from(stream)))),
        Request::Listen { address } => {
            TcpListener::bind(address).map(|stream| (Reply::Done, Some(OwnedFd::from(stream))))
        }
    };
    let (message, fd) = result.unwrap_or_else(|error| {
        let message = error.to_string();
        (Reply::Failed { message }, None)
    });
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
    protocol::send(socket, &Numbered { number, message }, &fds)?;
    Ok(true)
}

/// Makes the namespaces what they should be. Returns our pid as the host sees
/// it, which is our own view when there are no namespaces.
fn set_up(isolated: bool, rules: Option<OwnedFd>, files: &Files) -> io::Result<u32> {
    if !isolated {
        return Ok(std::process::id());
    }
    // Still the host's /proc: it has our pid as the host sees it.
    let pid = std::fs::read_link("/proc/self")?
        .to_str()
        .and_then(|pid| pid.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self makes no sense"))?;
    // Nobody inside needs namespaces of its own, which would give it rights in
    // them. Where the setting can't be written, no_new_privs has to do.
    let _ = std::fs::write("/proc/sys/user/max_user_namespaces", "0");
    root::enter(files)?;
    rustix::system::sethostname(b"kiln")?;
    netlink::bring_loopback_up().map_err(|error| context("loopback", &error))?;
    if let Some(rules) = rules {
        load_rules(rules)?;
    }
    Ok(pid)
}

fn load_rules(rules: OwnedFd) -> io::Result<()> {
    let output = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::from(rules))
        .output()
        .map_err(|error| context("nft", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "nft refused the network's rules: {}",
        said.trim()
    )))
}

/// Takes every capability from what runs inside: it could change the rules of
/// its network otherwise. Without namespaces it must at least not outlive us.
fn harmless(isolated: bool, argv: Vec<String>) -> Vec<String> {
    let mut words = vec!["setpriv", "--no-new-privs"];
    if isolated || rustix::process::geteuid().is_root() {
        words.extend(["--bounding-set", "-all", "--inh-caps", "-all"]);
    }
    if !isolated {
        words.extend(["--pdeathsig", "KILL"]);
    }
    words.push("--");
    words.into_iter().map(str::to_owned).chain(argv).collect()
}

fn spawn(
    argv: &[String],
    env: Vec<(String, String)>,
    cwd: &Path,
    (stdout, stderr): (bool, bool),
    fds: Vec<OwnedFd>,
    limits: Vec<(Resource, u64)>,
) -> io::Result<Running> {
    let mut fds = fds.into_iter();
    let stdout = if stdout { fds.next() } else { None };
    let stderr = if stderr { fds.next() } else { None };
    let inherited: Vec<OwnedFd> = fds.collect();
    for fd in &inherited {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    let mut argv = argv.iter().map(|word| name_descriptors(word, &inherited));
    let program = argv
        .next()
        .ok_or_else(|| io::Error::other("nothing to execute"))?;
    let mut command = Command::new(&program);
    command
        .args(argv)
        .env_clear()
        .envs(env)
        .current_dir(cwd)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout.map_or_else(Stdio::null, Stdio::from))
        .stderr(stderr.map_or_else(Stdio::null, Stdio::from));
    #[expect(unsafe_code, reason = "only so do they hold for the child alone")]
    // SAFETY: between fork and exec there are only system calls.
    unsafe {
        command.pre_exec(move || {
            rlimits::survive_large_files()?;
            rlimits::apply(&limits)
        });
    }
    let child = command.spawn().map_err(|error| context(&program, &error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without an id"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Running { child, pid, pidfd })
}

fn name_descriptors(word: &str, fds: &[OwnedFd]) -> String {
    use std::os::fd::AsRawFd;
    let mut word = word.to_owned();
    for (index, fd) in fds.iter().enumerate() {
        word = word.replace(&format!("{{fd{index}}}"), &fd.as_raw_fd().to_string());
    }
    word
}

pub(super) fn context(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
