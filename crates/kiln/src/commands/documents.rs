//! Man pages and completions, from the command line's own definition.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory;

use crate::{
    cli::Cli,
    exit::{Exit, Failure},
};

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> Exit {
    clap_complete::generate(shell, &mut Cli::command(), "kiln", &mut std::io::stdout());
    Exit::Success
}

/// Writes a man page for each command.
pub fn man(dir: &Path) -> Result<Exit, Failure> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(|| dir.display().to_string())?;
    Ok(Exit::Success)
}
