//! The command line of the farm: its server, its workers, its operator.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::config::{AdminSettings, Role, ServeSettings, WorkerSettings};

/// `kiln serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGINT or SIGTERM: takes no more jobs, and ends when the running ones have ended; the second one ends at once. `kiln config show` prints what holds and where it was said."
)]
pub struct ServeArgs {
    /// The settings.
    #[command(flatten)]
    pub settings: ServeSettings,
}

/// `kiln worker`.
#[derive(Debug, Args)]
#[command(
    after_help = "SIGINT or SIGTERM: takes no more jobs, and ends when the running ones have ended; the second one stops their guests. `kiln config show --of worker` prints what holds and where it was said."
)]
pub struct WorkerArgs {
    /// The settings.
    #[command(flatten)]
    pub settings: WorkerSettings,
}

/// `kiln config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the settings are right, and what of a config.ini is not used
    Check(ConfigArgs),
    /// Print the settings that hold, and where each was said
    Show(ConfigArgs),
}

/// Whose settings.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Whose settings
    #[arg(long, value_enum, default_value_t = Command::Serve)]
    pub of: Command,
    /// Read settings from this file: TOML, or SourceHut's config.ini
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Flags of that command, as it would be given them
    #[arg(last = true, value_name = "FLAGS")]
    pub flags: Vec<String>,
}

/// A command that has settings.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Command {
    /// `kiln serve`
    Serve,
    /// `kiln worker`
    Worker,
}

impl From<Command> for Role {
    fn from(command: Command) -> Self {
        match command {
            Command::Serve => Self::Serve,
            Command::Worker => Self::Worker,
        }
    }
}

/// `kiln admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Where the state is.
    #[command(flatten)]
    pub settings: AdminSettings,
    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What an operator does.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Users: add, list, revoke
    #[command(subcommand)]
    User(UserCommand),
    /// Make a user's token; it is the last line that is printed
    Token(TokenArgs),
    /// Workers: add, list, revoke, pause, resume
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Bring the database's schema up to date; needs the role that owns the tables
    Migrate,
    /// Compare the database with the logs and artifacts that are there; 1 if some are missing
    Check,
    /// Copy the SQLite database into a file, also while the server runs
    Backup {
        /// The file, which must not be there yet.
        file: PathBuf,
    },
    /// Put a copy in the SQLite database's place; the server must not run
    Restore {
        /// The copy.
        file: PathBuf,
    },
    /// After a copy of a PostgreSQL database was put back, before any server starts: end what ran, and let no
    /// number be given twice; needs the role that owns the tables
    Restored,
}

/// `kiln admin user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user
    Add {
        /// The name, without ~.
        name: String,
        /// Where mail goes
        #[arg(long, value_name = "ADDRESS")]
        email: String,
        /// It may see and change what is others'
        #[arg(long)]
        admin: bool,
    },
    /// List the users
    List,
    /// Refuse all tokens of a user from now on
    Revoke {
        /// The name.
        name: String,
    },
}

/// `kiln admin token`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TokenArgs {
    /// Whose token.
    #[arg(required = true)]
    pub name: Option<String>,
    /// What it may do: JOBS, LOGS, SECRETS and PROFILE, each with :RO or :RW
    #[arg(long, value_name = "GRANTS", required = true)]
    pub grants: Option<String>,
    /// How long it is good for; default for ever
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: Option<u32>,
    /// What else to do with tokens.
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
}

/// What else one does with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List a user's tokens: what they may do, never the tokens themselves
    List {
        /// Whose.
        name: String,
    },
    /// Take a token back
    Revoke {
        /// Its number, as `list` has it.
        id: i32,
    },
}

/// `kiln admin worker`.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Register a worker; its token is the last line that is printed
    Add {
        /// The name.
        name: String,
    },
    /// List the registered workers
    List,
    /// Take a worker's token back
    Revoke {
        /// The name.
        name: String,
    },
    /// Give a worker no more jobs
    Pause {
        /// The name.
        name: String,
        /// Why, for whoever asks where their job is
        #[arg(long, default_value = "paused by the operator")]
        reason: String,
    },
    /// Give a worker jobs again
    Resume {
        /// The name.
        name: String,
    },
}
