//! What may stand between a hook and its servers in a test: it sees every call that passed the checks,
//! and lets it through, answers it itself, or makes it go wrong. A real run has none.
//!
//! It is behind the checks and the session's task, so that grants, limits, deadlines, the closing of
//! sessions and everything else that a hook can notice are the host's own.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::Target;
use super::engine::{Client, Failed, Opened, Session};
use super::process::{Call, Output, Refusal as ProgramRefusal};
use super::sql::{Answer, Job, Refusal, ServerInfo};
use crate::config::connections::Engine;

/// Which session of a run, counted from 1 in the order of opening.
pub(crate) type SessionNumber = u32;

/// What a server itself would do. Nothing is sent before it is awaited.
pub(crate) type Real<'a, T> = BoxFuture<'a, T>;

/// What stands between. Each method is given what the server would do; who does not await it keeps the
/// call from the server. Any of these futures may be dropped, at a deadline.
#[async_trait]
pub(crate) trait Stage: fmt::Debug + Send + Sync {
    /// A session is opened on the connection that the hook calls `name`.
    async fn open(
        &self,
        name: &str,
        engine: Engine,
        real: Real<'_, Result<Opened, Refusal>>,
    ) -> Result<Entrance, Refusal>;

    /// A granted statement is run.
    async fn run(
        &self,
        session: SessionNumber,
        job: &Job,
        real: Option<Real<'_, Result<Answer, Failed>>>,
    ) -> Result<Answer, Failed>;

    /// The session is asked whether it is alive.
    async fn ping(&self, session: SessionNumber, real: Option<Real<'_, bool>>) -> bool;

    /// The session has ended, however that came.
    fn ended(&self, session: SessionNumber);

    /// A granted program is run.
    async fn program(
        &self,
        call: &Call,
        real: Real<'_, Result<Output, ProgramRefusal>>,
    ) -> Result<Output, ProgramRefusal>;

    /// State is read or kept: `call` is `kv.set` with the key, and the like. What would be done says
    /// whether it succeeded. Gives what to say in place of its answer, if it is to fail.
    async fn state(&self, call: &str, real: Real<'_, bool>) -> Option<String>;
}

/// A session that was let in.
pub(crate) struct Entrance {
    pub(crate) number: SessionNumber,
    /// The server's own id of the session.
    pub(crate) id: u64,
    pub(crate) info: ServerInfo,
    /// The session with a real server, if there is one.
    pub(crate) real: Option<Opened>,
}

/// A session whose calls pass a stage.
pub(crate) struct StagedSession {
    stage: Arc<dyn Stage>,
    number: SessionNumber,
    real: Option<Box<Client>>,
}

impl StagedSession {
    pub(super) fn new(stage: Arc<dyn Stage>, number: SessionNumber, real: Option<Client>) -> Self {
        Self { stage, number, real: real.map(Box::new) }
    }
}

impl fmt::Debug for StagedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedSession").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Session for StagedSession {
    async fn run(&mut self, job: &Job) -> Result<Answer, Failed> {
        let real = self.real.as_mut().map(|real| real.run(job));
        self.stage.run(self.number, job, real).await
    }

    async fn ping(&mut self) -> bool {
        let real = self.real.as_mut().map(|real| real.ping());
        self.stage.ping(self.number, real).await
    }

    async fn quit(mut self) {
        if let Some(real) = self.real.take() {
            real.quit().await;
        }
    }

    async fn kill(mut self, target: &Target) -> Result<(), String> {
        match self.real.take() {
            None => Ok(()),
            Some(real) => real.kill(target).await,
        }
    }
}

impl Drop for StagedSession {
    fn drop(&mut self) {
        self.stage.ended(self.number);
    }
}
