//! stub
use crate::{cli::DoctorArgs, exit::{Exit, Failure}};
/// stub
pub async fn run(_args: &DoctorArgs) -> Result<Exit, Failure> { Err(Failure::host("x")) }
