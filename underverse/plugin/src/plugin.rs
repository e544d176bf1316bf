//! The caller's side: a backend in a process of its own, as if it were linked in.

mod admin;
mod calls;

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use underverse::{Capabilities, Effect, Error, Kind};

use crate::launch::Launch;
use crate::session::Session;

/// Most processes that one call, or one pass, is tried on before it is given up.
pub const ATTEMPTS_MAX: u32 = 5;
/// Pause before a plug-in that died is started again.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest such pause: it doubles with each death that follows another.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Life time after which a death counts as the first again.
pub const BACKOFF_RESET: Duration = Duration::from_secs(10);

/// A backend in a process of its own. Cloning shares the process; dropping the last handle ends it.
///
/// When the process dies it is started again, after a pause that doubles up to [`BACKOFF_MAX`], by the next call or by
/// the one that was waiting. Every call of the trait may be repeated, so that one is; after [`ATTEMPTS_MAX`] processes
/// it answers `Unavailable` with effect `Unknown`.
#[derive(Debug, Clone)]
pub struct Plugin {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    launch: Launch,
    /// The process there is now, and what is known of those before.
    state: Mutex<State>,
    capabilities: StdMutex<Capabilities>,
    now: StdMutex<Option<Arc<Session>>>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    began: Option<Instant>,
    pause: Option<Duration>,
}

impl Plugin {
    /// Finds the plug-in `name` beside the running program or on PATH, starts it and greets it.
    ///
    /// # Errors
    /// As [`Launch::find`] and [`Launch::start`].
    pub async fn find(name: &str) -> Result<Self, Error> {
        Launch::find(name)?.start().await
    }

    pub(crate) async fn start(launch: Launch) -> Result<Self, Error> {
        let shared = Shared {
            launch,
            state: Mutex::default(),
            capabilities: StdMutex::default(),
            now: StdMutex::default(),
        };
        let plugin = Self {
            shared: Arc::new(shared),
        };
        plugin.session().await?;
        Ok(plugin)
    }

    /// The process there is now, if there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.current().and_then(|session| session.pid)
    }

    /// The program as it names itself: "radix-underverse-toy 0.1.0".
    #[must_use]
    pub fn program(&self) -> String {
        self.current()
            .map(|session| session.program.clone())
            .unwrap_or_default()
    }

    /// Whether it has an administrator's face.
    #[must_use]
    pub fn has_admin(&self) -> bool {
        self.current().is_some_and(|session| session.admin)
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.shared
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn record(&self) -> Capabilities {
        self.shared
            .capabilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A process that is alive as far as is known: the one there is, or a new one.
    async fn session(&self) -> Result<Arc<Session>, Error> {
        let shared = &self.shared;
        let mut state = shared.state.lock().await;
        if let Some(session) = state
            .session
            .as_ref()
            .filter(|session| !session.has_ended())
        {
            return Ok(Arc::clone(session));
        }
        if state.session.take().is_some() {
            let lived_long = state
                .began
                .is_some_and(|began| began.elapsed() >= BACKOFF_RESET);
            let pause = state
                .pause
                .filter(|_| !lived_long)
                .map_or(BACKOFF_MIN, |pause| (pause * 2).min(BACKOFF_MAX));
            tracing::warn!(
                plugin = shared.launch.name,
                ?pause,
                "a plug-in died and is started again"
            );
            tokio::time::sleep(pause).await;
            state.pause = Some(pause);
        }
        let session = Arc::new(Session::start(&shared.launch).await?);
        state.began = Some(Instant::now());
        state.session = Some(Arc::clone(&session));
        let record = session.capabilities.clone();
        *shared
            .capabilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = record;
        *shared.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Gives up a process whose connection broke, so that the next call starts another.
    async fn discard(&self, broken: &Arc<Session>) {
        let state = self.shared.state.lock().await;
        if state
            .session
            .as_ref()
            .is_some_and(|session| Arc::ptr_eq(session, broken))
        {
            broken.end();
        }
    }

    /// The answer when every attempt died.
    fn gave_up(&self, last: Option<Error>) -> Error {
        let message = format!("it died {ATTEMPTS_MAX} times during this call");
        let error = Error::new(Kind::Unavailable, "call a plug-in", message)
            .with("plug-in", &self.shared.launch.name)
            .effect(Effect::Unknown);
        match last {
            Some(last) => error.caused_by(last),
            None => error,
        }
    }
}
