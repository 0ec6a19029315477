//! The command line of the client: what people do with a farm.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which farm, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct FarmArgs {
    /// The farm: https://HOST, http://localhost:PORT or unix:PATH; default
    /// where `kiln login` was
    #[arg(long, env = "KILN_SERVER", value_name = "URL", help_heading = "Farm")]
    pub server: Option<String>,
    /// The file with your token, which nobody else may read; default what
    /// `kiln login` kept, or $KILN_TOKEN itself
    #[arg(
        long,
        env = "KILN_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Farm"
    )]
    pub token_file: Option<PathBuf>,
    /// Further certificates to trust (PEM)
    #[arg(long, env = "KILN_CA", value_name = "FILE", help_heading = "Farm")]
    pub ca: Option<PathBuf>,
    /// Allow plain HTTP to another host: others can read your token then
    #[arg(long, help_heading = "Farm")]
    pub insecure: bool,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct JsonArg {
    /// Print the API's own objects, one on a line
    #[arg(long)]
    pub json: bool,
}

/// `kiln login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The farm; default http://127.0.0.1:8080.
    pub url: Option<String>,
    /// Where to find it.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// Who sees a job.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Visibility {
    /// Everybody, in lists too
    Public,
    /// Everybody who has the link
    Unlisted,
    /// You
    Private,
}

impl Visibility {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "PUBLIC",
            Self::Unlisted => "UNLISTED",
            Self::Private => "PRIVATE",
        }
    }
}

/// `kiln submit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status of -f: 0 success, 1 the build failed, 2 the manifest or the command line is wrong, 3 the farm can't be reached, 4 the job was cancelled or lost by the farm, 124 timeout, 130 detached by Ctrl-C: the job goes on. Of several files: the first that is not 0."
)]
pub struct SubmitArgs {
    /// The manifests; default .build.yml, else the only file in .builds/; - is
    /// standard input.
    pub files: Vec<PathBuf>,
    /// Follow the job to its end
    #[arg(short, long, conflicts_with = "pending")]
    pub follow: bool,
    /// A tag; again for more
    #[arg(short, long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// A note for whoever looks at the job
    #[arg(short, long)]
    pub note: Option<String>,
    /// Who sees the job; default unlisted
    #[arg(long, value_enum)]
    pub visibility: Option<Visibility>,
    /// A label that the worker must have
    #[arg(long, value_name = "KEY=VALUE")]
    pub require: Vec<String>,
    /// Without the manifest's secrets
    #[arg(long)]
    pub no_secrets: bool,
    /// Don't start it: `kiln start` does, or a group
    #[arg(long)]
    pub pending: bool,
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// `kiln list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// How many, newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 25)]
    pub limit: u32,
    /// Another user's public jobs: ~name
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// A command about one job.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job: its number or its URL.
    pub job: String,
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// `kiln logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job: its number or its URL.
    pub job: String,
    /// Follow to the job's end; the exit status is then as of `kiln submit -f`
    #[arg(short, long)]
    pub follow: bool,
    /// Only this task's
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// `kiln artifacts`.
#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    /// The job: its number or its URL.
    pub job: String,
    /// Fetch them into this directory
    #[arg(long, value_name = "DIR")]
    pub download: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// `kiln resubmit`.
#[derive(Debug, Args)]
pub struct ResubmitArgs {
    /// The job: its number or its URL.
    pub job: String,
    /// Follow the new job to its end
    #[arg(short, long)]
    pub follow: bool,
    /// A note for it
    #[arg(short, long)]
    pub note: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// `kiln group`.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// Pending jobs, by number or URL; or manifests, which are submitted.
    #[arg(required = true)]
    pub members: Vec<String>,
    /// A note
    #[arg(short, long)]
    pub note: Option<String>,
    /// Mail to send when all have ended; this farm stores it and does not
    /// deliver it yet
    #[arg(long, value_name = "ADDRESS")]
    pub email: Vec<String>,
    /// A URL to call when all have ended; likewise
    #[arg(long, value_name = "URL")]
    pub webhook: Vec<String>,
    /// Don't start them
    #[arg(long)]
    pub pending: bool,
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}

/// `kiln workers`, `kiln queue`.
#[derive(Debug, Args)]
pub struct FarmListArgs {
    /// How to print.
    #[command(flatten)]
    pub json: JsonArg,
    /// Which farm.
    #[command(flatten)]
    pub farm: FarmArgs,
}
