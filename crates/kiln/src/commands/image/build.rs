//! stub
use crate::{cli::ImageBuildArgs, exit::{Exit, Failure}};
/// stub
pub async fn run(_args: &ImageBuildArgs) -> Result<Exit, Failure> { Err(Failure::host("x")) }
