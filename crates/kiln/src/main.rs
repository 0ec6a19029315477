//! The kiln command: its command line, its wiring, what a person sees.
//!
//! Only this crate reads the environment and decides where files go; the
//! crates below are given what they need. The same binary is also the helper
//! inside a guest's namespaces and the other end of an image's `guest_ssh`;
//! those come before anything else here, while there is one thread.

mod cli;
mod commands;
mod config;
mod exit;
mod farm;
mod host;
mod logging;
mod ui;
mod units;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use kiln_vm::{namespace, qemu::control::client};

use cli::{Cli, Command};
use exit::Exit;

/// The hidden first argument for the other end of `guest_ssh`; images'
/// `functions.sh` in kiln-vm calls it.
const CONTROL_COMMAND: &str = "__control";

fn main() -> ExitCode {
    if let Err(error) = namespace::helper::keep_descriptors_private() {
        ui::error(&format!("/proc/self/fd: {error}"));
        return Exit::Host.into();
    }
    let mut words = std::env::args().skip(1);
    let first = words.next();
    match first.as_deref() {
        Some(namespace::HELPER_COMMAND) => {
            let isolation = words.next().unwrap_or_default();
            return namespace::helper::main(&isolation, &words.collect::<Vec<_>>());
        }
        Some(namespace::INIT_COMMAND) => {
            return namespace::helper::init_main(&words.next().unwrap_or_default());
        }
        Some(commands::ssh::DIAL_COMMAND) => return dial(&words.collect::<Vec<_>>()),
        Some(CONTROL_COMMAND) => return control_client(&words.collect::<Vec<_>>()),
        _ => {}
    }
    let cli = Cli::parse();
    // A server and a worker log as their settings say.
    if !matches!(cli.command, Command::Serve(_) | Command::Worker(_)) {
        logging::for_commands(cli.verbose);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui::error(&format!("no threads to run on: {error}"));
            return Exit::Host.into();
        }
    };
    let exit = match runtime.block_on(commands::dispatch(cli.command, cli.verbose)) {
        Ok(exit) => exit,
        Err(failure) => {
            ui::error(&failure.message);
            failure.exit
        }
    };
    // Reads of a terminal can't be taken back; don't wait for them.
    runtime.shutdown_background();
    exit.into()
}

fn dial(words: &[String]) -> ExitCode {
    let Some(socket) = words.first() else {
        return Exit::Usage.into();
    };
    match on_one_thread(commands::ssh::dial(Path::new(socket))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::error(&error.to_string());
            ExitCode::from(255)
        }
    }
}

/// For the small helpers. Does not wait for a read of standard input.
fn on_one_thread<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

fn control_client(words: &[String]) -> ExitCode {
    let Some((socket, words)) = words.split_first() else {
        return Exit::Usage.into();
    };
    let (request, stdin) = match client::parse(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            ui::error(&error);
            return Exit::Usage.into();
        }
    };
    match on_one_thread(client::run(Path::new(socket), &request, stdin)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            ui::error(&format!("guest_ssh: {error}"));
            ExitCode::from(255)
        }
    }
}
