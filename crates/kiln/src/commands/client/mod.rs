//! What people do with a farm, over its public API.

mod artifacts;
mod change;
mod login;
mod operate;
mod shown;
mod submit;
mod table;

use serde_json::Value;

use crate::{
    cli::{
        Command,
        client::{JobArgs, LogsArgs},
    },
    exit::{Exit, Failure},
    farm::{self, Farm, follow::follow},
    ui::{self, display::Display},
};

/// Runs one of these commands.
pub async fn dispatch(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Login(args) => login::run(&args).await,
        Command::Submit(args) => submit::run(&args).await,
        Command::List(args) => shown::list(&args).await,
        Command::Show(args) => shown::show(&args).await,
        Command::Logs(args) => logs(&args).await,
        Command::Artifacts(args) => artifacts::run(&args).await,
        Command::Cancel(args) => change::cancel(&args).await,
        Command::Start(args) => change::start(&args).await,
        Command::Resubmit(args) => submit::resubmit(&args).await,
        Command::Group(args) => submit::group(&args).await,
        Command::Workers(args) => operate::workers(&args).await,
        Command::Queue(args) => operate::queue(&args).await,
        _ => Err(Failure::usage("this is no command of a farm's client")),
    }
}

/// An object of the API, on one line.
fn print_json(value: &Value) {
    ui::line(&value.to_string());
}

/// A line with words of strangers in it.
fn print(text: &str) {
    ui::line(&ui::clean(text));
}

/// The farm and the job that a command is about.
fn job_of(args: &JobArgs) -> Result<(Farm, i32), Failure> {
    let farm = Farm::of(&args.farm)?;
    let id = farm.job_id(&args.job)?;
    Ok((farm, id))
}

/// Follows a job to its end, or until Ctrl-C.
async fn follow_to_exit(farm: &Farm, id: i32, display: &Display) -> Result<Exit, Failure> {
    let spinner = display.spin();
    let followed = async {
        tokio::select! {
            job = follow(farm, id, display) => job,
            () = async { spinner.await; std::future::pending().await } => Err(Failure::interrupted()),
        }
    };
    tokio::select! {
        job = followed => Ok(farm::exit(&job?)),
        asked = tokio::signal::ctrl_c() => {
            asked.map_err(Failure::host)?;
            display.pause().await;
            ui::note(&format!("the job goes on; `kiln logs -f {id}` comes back to it, `kiln cancel {id}` ends it"));
            Ok(Exit::Interrupted)
        }
    }
}

async fn logs(args: &LogsArgs) -> Result<Exit, Failure> {
    let farm = Farm::of(&args.farm)?;
    let id = farm.job_id(&args.job)?;
    match (&args.task, args.follow) {
        (None, true) => follow_to_exit(&farm, id, &Display::new(false)).await,
        (task, follow) => farm::logs::print(&farm, id, task.as_deref(), follow).await,
    }
}
