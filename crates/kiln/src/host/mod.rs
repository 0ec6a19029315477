//! What kiln finds on this host: directories, the accelerator, the package
//! mirror. Only here are the environment and the host's configuration read.

pub mod apt;
pub mod data_dir;
pub mod files;
pub mod locked;
pub mod machine;
pub mod namespaces;
pub mod paths;
pub mod preparation;
pub mod private;
pub mod proxy;
pub mod scratch;
pub mod signals;
