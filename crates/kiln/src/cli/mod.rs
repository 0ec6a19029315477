//! The command line. Help texts, man pages and completions come from here.
#![expect(
    rustdoc::broken_intra_doc_links,
    reason = "brackets in a help text are its user's, not links"
)]

pub mod client;
pub mod farm;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::units::{bytes, disk, duration, duration_or_none, mebibytes};

/// The guest's processors, as upstream has them.
pub const DEFAULT_CPUS: u32 = 2;

/// A self-hosted build farm: each manifest runs in a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    about,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more about what happens on this host; twice: everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a manifest in a fresh guest on this machine
    Run(Box<RunArgs>),
    /// Look at manifests without running them
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Make, list and check images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Enter the guest of a run that was kept
    Ssh(SshArgs),
    /// Look for what keeps this host from running guests
    Doctor(DoctorArgs),
    /// Run a farm's server, with a worker inside
    Serve(Box<farm::ServeArgs>),
    /// Run a farm's jobs on this host
    Worker(Box<farm::WorkerArgs>),
    /// Look at the settings of serve and worker
    #[command(subcommand)]
    Config(farm::ConfigCommand),
    /// A farm's users, tokens, workers and backups
    Admin(Box<farm::AdminArgs>),
    /// Keep a farm's URL and your token for the commands below
    Login(client::LoginArgs),
    /// Submit manifests to the farm
    Submit(Box<client::SubmitArgs>),
    /// List your jobs
    List(client::ListArgs),
    /// Show a job: its tasks, its artifacts, why it is as it is
    Show(client::JobArgs),
    /// Print a job's logs
    Logs(client::LogsArgs),
    /// List, or fetch, a job's artifacts
    Artifacts(client::ArtifactsArgs),
    /// Cancel a job
    Cancel(client::JobArgs),
    /// Start a pending job
    Start(client::JobArgs),
    /// Submit a job's manifest again
    Resubmit(client::ResubmitArgs),
    /// Make a group of jobs
    Group(client::GroupArgs),
    /// List the workers that are here (admins)
    Workers(client::FarmListArgs),
    /// List what waits, and why
    Queue(client::FarmListArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// Where to; it is made.
        dir: PathBuf,
    },
}

/// Where images are.
#[derive(Debug, Clone, Args)]
pub struct ImagesArgs {
    /// The images directory; else $XDG_DATA_HOME/kiln/images where that
    /// exists, else /var/lib/kiln/images
    #[arg(long, env = "KILN_IMAGES", value_name = "DIR")]
    pub images: Option<PathBuf>,
}

/// `kiln run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 success, 1 the build failed, 2 the manifest or the command line is wrong, 3 the host or the image can't, 124 timeout, 130 interrupted."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct RunArgs {
    /// The manifest; default .build.yml, else the only file in .builds/
    pub file: Option<PathBuf>,
    /// Run a farm's job again on this machine: its manifest, its sources at the
    /// commits that it had. Its URL, or its number on the farm of `kiln login`
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "here"])]
    pub job: Option<String>,
    /// Set a variable, over the manifest's
    #[arg(short, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Give a secret of the manifest: NAME=FILE (a file in the home directory,
    /// or an SSH or PGP key, told by its first line), NAME=ssh:FILE,
    /// NAME=pgp:FILE, NAME=file:FILE:PATH[:MODE]
    #[arg(long, value_name = "NAME=…")]
    pub secret: Vec<String>,
    /// Also put the artifacts here
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// How long the job may take: 90s, 45m, 2h
    #[arg(long, default_value = "45m", value_parser = duration)]
    pub timeout: Duration,
    /// How long the guest may take to let us in
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub boot_timeout: Duration,
    /// The architecture, over the manifest's
    #[arg(long)]
    pub arch: Option<String>,
    /// The guest's memory: 2048, 2G
    #[arg(long, value_parser = mebibytes)]
    pub memory: Option<u32>,
    /// The guest's processors
    #[arg(long, default_value_t = DEFAULT_CPUS, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: u32,
    /// How much the guest may write to its disk: 4096, 4G; default all that the
    /// disk holds. What is more is an I/O error in the guest
    #[arg(long, value_name = "SIZE", value_parser = disk)]
    pub disk: Option<u32>,
    /// No network for the guest
    #[arg(long, conflicts_with = "allow")]
    pub no_network: bool,
    /// An address outside the public internet that the guest may reach, such as
    /// a git server's or an apt proxy's. This host's own loopback,
    /// localhost:PORT, is 10.0.2.2:PORT in the guest
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Boot the guest instead of starting it from its image's template, a guest
    /// that was booted once and frozen
    #[arg(long)]
    pub cold: bool,
    /// Install the manifest's packages again, even where a guest that has them
    /// was kept, and keep this one in its place
    #[arg(long)]
    pub fresh: bool,
    /// How old a kept guest with the manifest's packages may be: 12h, 2d; with
    /// 0 none is used or kept
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = duration_or_none)]
    pub derived_ttl: Duration,
    /// A shell in the guest when the tasks have ended
    #[arg(long)]
    pub shell: bool,
    /// On failure: say how to get in, and wait
    #[arg(long)]
    pub keep: bool,
    /// The most that is kept of one task's log: 256M
    #[arg(long, default_value = "256M", value_parser = bytes)]
    pub log_limit: u64,
    /// Use the working copy in this directory, uncommitted changes included,
    /// in place of the source that is this repository
    #[arg(long)]
    pub here: bool,
    /// One event per line instead of text
    #[arg(long)]
    pub json: bool,
    /// Where images are.
    #[command(flatten)]
    pub images: ImagesArgs,
    /// Run on the dummy machine
    #[cfg(feature = "testing")]
    #[arg(long, hide = true)]
    pub dummy: bool,
    /// Which farm, for --job.
    #[command(flatten)]
    pub farm: client::FarmArgs,
}

/// `kiln manifest`.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Say whether manifests are right, or what is wrong where
    Check {
        /// The manifests.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Print each as normalised JSON
        #[arg(long)]
        json: bool,
    },
}

/// `kiln image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image from its distribution's own packages
    Build(ImageBuildArgs),
    /// List the images that are there
    List {
        /// Where images are.
        #[command(flatten)]
        images: ImagesArgs,
        /// One JSON object per image
        #[arg(long)]
        json: bool,
    },
    /// Boot an image and run its own tests
    Check {
        /// The image, such as debian/bookworm.
        name: String,
        /// The architecture
        #[arg(long)]
        arch: Option<String>,
        /// As of `kiln run`: an address that its guests may reach
        #[arg(long, value_name = "HOST[:PORT]")]
        allow: Vec<String>,
        /// Where images are.
        #[command(flatten)]
        images: ImagesArgs,
    },
    /// builds.sr.ht's `control` command line, for scripts that call it
    Control(ControlArgs),
}

/// `kiln image build`.
#[derive(Debug, Args)]
pub struct ImageBuildArgs {
    /// The image, such as debian/bookworm, or debian/stable.
    pub name: String,
    /// The architecture; default the host's
    #[arg(long)]
    pub arch: Option<String>,
    /// Where the packages come from; default the host's own apt configuration
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Do nothing when the image is there
    #[arg(long)]
    pub if_missing: bool,
    /// Where images are.
    #[command(flatten)]
    pub images: ImagesArgs,
}

/// `kiln image control`.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// The image, such as debian/bookworm.
    pub image: String,
    /// boot ARCH PORT [MEANS], cleanup PORT, install PORT PACKAGE…, add-repo
    /// PORT NAME SOURCE, sanity-check, ssh PORT COMMAND…
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
    /// As of `kiln run`: an address that its guests may reach
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Where images are.
    #[command(flatten)]
    pub images: ImagesArgs,
}

/// `kiln ssh`.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// The run, as `kiln run --keep` named it; default the newest.
    pub run: Option<String>,
    /// A command; a shell when absent.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// `kiln doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where images are.
    #[command(flatten)]
    pub images: ImagesArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
