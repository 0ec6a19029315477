//! A machine for tests: its guests are ready in milliseconds, run commands with
//! the host's own bash in a private home directory, and can be told to misbehave.
//!
//! What the step engine sends is run for real, so a test that passes here has
//! seen the same scripts that a virtual machine gets. A guest's commands find a
//! few words of its own on their `PATH`:
//!
//! | word | does |
//! |---|---|
//! | `fail CODE` | exits with the code |
//! | `flood BYTES [long]` | prints that much, in lines or as a single one |
//! | `garbage` | prints bytes that are no text |
//! | `hang` | never ends |
//! | `vanish`, `panic` | the guest is gone |
//! | `full` | the host has no space for the guest from now on |
//! | `overfill` | the guest has written more to its disk than it may |
//! | `cut` | the connection is lost, the guest lives |
//!
//! Packages whose name begins with `no-such` can't be installed (100),
//! repositories whose source does can't be added (2).
//!
//! It is no jail: whoever writes its scripts is trusted with this user's files.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use self::{guest::DummyGuest, null::NullGuest};
use crate::{
    image::Image,
    machine::{Gone, Guest, GuestSpec, Login, Machine, StartError},
    network::Network,
};

mod guest;
mod null;
#[cfg(test)]
mod tests;

/// How a guest comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At once.
    #[default]
    Ready,
    /// After this long.
    Slow(Duration),
    /// At once, and nothing is ever run in it: all that it is told has succeeded.
    Null,
    /// Never: starting takes until somebody gives up.
    Hangs,
    /// It runs but nobody can log in.
    NeverAnswers,
    /// It powers itself off before anybody can log in.
    PowersOff,
    /// The host has no room for it.
    NoSpace,
    /// The image is broken.
    BadImage,
}

/// What becomes of guests that are to be kept with their packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// They can't be.
    #[default]
    Not,
    /// They are; the job goes on in another one.
    As,
    /// They are gone, and nothing goes on from there.
    Lost,
}

/// What a guest was asked for, as tests see it afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Machine::start`] was called.
    Start,
    /// [`Guest::exec`] with this command.
    Exec(String),
    /// [`Guest::add_repository`] with this name and source.
    AddRepository(String, String),
    /// [`Guest::install`] with these packages.
    Install(Vec<String>),
    /// [`Guest::keep`].
    Keep,
    /// [`Guest::fresh_login`].
    FreshLogin,
    /// [`Guest::stop`].
    Stop,
}

/// Decides at a call whether something happens to the guest.
type Fault = dyn Fn(&Call) -> bool + Send + Sync;

/// The machine.
#[derive(Clone, Default)]
pub struct Dummy {
    start: Start,
    words: Vec<String>,
    keep: Keep,
    prepared: Option<Duration>,
    vanish: Option<Arc<Fault>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Dummy {
    /// A machine whose guests come to be like this.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// Guests know one more word: a bash script.
    #[must_use]
    pub fn with_word(mut self, word: &str, script: &str) -> Self {
        self.words.extend([word.to_owned(), script.to_owned()]);
        self
    }

    /// What becomes of guests that are to be kept.
    #[must_use]
    pub fn keeping(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Guests of jobs that install something have it for so long.
    #[must_use]
    pub fn prepared(mut self, age: Duration) -> Self {
        self.prepared = Some(age);
        self
    }

    /// What to start in this directory when the image doesn't matter.
    #[must_use]
    pub fn spec(dir: PathBuf) -> GuestSpec {
        GuestSpec {
            preparation: None,
            image: Image {
                name: "dummy".into(),
                arch: "amd64".into(),
                base: dir.clone(),
                dir: dir.clone(),
                login: Login::default(),
            },
            memory_mib: None,
            cpus: 1,
            disk_mib: None,
            network: Network::None,
            farm: None,
            dir,
        }
    }

    /// Guests power themselves off at the first call that this is true for.
    #[must_use]
    pub fn vanishing_at(mut self, fault: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.vanish = Some(Arc::new(fault));
        self
    }

    /// What the guests were asked for so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes the call; whether the guest is to vanish at it.
    fn note(&self, call: Call) -> bool {
        let vanish = self.vanish.as_ref().is_some_and(|fault| fault(&call));
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
        vanish
    }
}

#[async_trait]
impl Machine for Dummy {
    async fn start(&self, spec: &GuestSpec) -> Result<Box<dyn Guest>, StartError> {
        self.note(Call::Start);
        match self.start {
            Start::Ready => {}
            Start::Null => return Ok(Box::new(NullGuest::new(spec.image.login.clone()))),
            Start::Slow(time) => tokio::time::sleep(time).await,
            Start::Hangs => std::future::pending().await,
            Start::NeverAnswers => {
                return Err(StartError::NoLogin {
                    reason: "nothing answered on its SSH port",
                    detail: "the dummy's console".into(),
                });
            }
            Start::PowersOff => {
                return Err(StartError::Gone {
                    gone: Gone::PoweredOff,
                    detail: "the dummy's console".into(),
                });
            }
            Start::NoSpace => {
                let dir = spec.dir.display();
                return Err(StartError::Host(format!("{dir}: no space left on device")));
            }
            Start::BadImage => {
                let dir = spec.image.dir.display();
                return Err(StartError::Image(format!("{dir}: not a qcow2 file")));
            }
        }
        let guest = DummyGuest::start(self.clone(), spec).await;
        Ok(Box::new(guest.map_err(|error| {
            StartError::Host(format!("the dummy guest can't run bash: {error}"))
        })?))
    }
}
