//! What a hook can do with its state: the checks that every version of the contract comes through.

use std::future::Future;
use std::sync::Arc;

use tokio::time::timeout_at;

use crate::time::Deadline;

use super::super::stage::Stage;
use super::super::{Denial, Powers};
use super::state::Trouble;
use super::states::{KvStates, words};
use super::worker::NoResult;

/// The longest key, in bytes.
const LONGEST_KEY: usize = 128;

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KvFailure {
    /// Not granted, or not in this phase.
    Denied,
    /// Keys and values would be more than the quota.
    TooLarge,
    /// It cannot be read or written.
    Io(String),
    /// The key is none.
    BadKey(String),
}

/// A call was refused: what the guest is told, and what only the operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) failure: KvFailure,
    pub(crate) hint: Option<String>,
}

impl From<Denial> for Refused {
    fn from(Denial { message, hint }: Denial) -> Self {
        Self { failure: KvFailure::Denied, hint: Some(format!("{message}: {hint}")) }
    }
}

impl From<Trouble> for Refused {
    fn from(trouble: Trouble) -> Self {
        let hint = match &trouble {
            Trouble::State(error) => error.hint(),
            Trouble::NoResult(_) => None,
        };
        Self { failure: KvFailure::Io(words(&trouble)), hint }
    }
}

/// One hook's way to its state, in one instance.
#[derive(Debug)]
pub(crate) struct KvHost {
    hook: String,
    powers: Arc<Powers>,
    states: KvStates,
    stage: Option<Arc<dyn Stage>>,
}

impl KvHost {
    pub(crate) fn new(
        hook: String,
        powers: Arc<Powers>,
        states: KvStates,
        stage: Option<Arc<dyn Stage>>,
    ) -> Self {
        Self { hook, powers, states, stage }
    }

    /// What is kept under `key`.
    pub(crate) async fn get(
        &self,
        key: &str,
        deadline: Deadline,
    ) -> Result<Option<Vec<u8>>, Refused> {
        self.powers.kv_quota()?;
        check_key(key)?;
        let state = self.states.of(&self.hook, self.powers.paths());
        let real = async { Ok(state.content(deadline).await?.entries.remove(key)) };
        self.staged(|| format!("kv.get {key}"), deadline, real).await
    }

    /// Every key that is there, sorted.
    pub(crate) async fn keys(&self, deadline: Deadline) -> Result<Vec<String>, Refused> {
        self.powers.kv_quota()?;
        let state = self.states.of(&self.hook, self.powers.paths());
        let real = async { Ok(state.content(deadline).await?.entries.into_keys().collect()) };
        self.staged(|| "kv.keys".into(), deadline, real).await
    }

    /// Keeps `value` under `key`; `None` removes it. Durable when this returns.
    pub(crate) async fn set(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<(), Refused> {
        let quota = self.powers.kv_quota()?;
        check_key(key)?;
        let verb = if value.is_some() { "set" } else { "delete" };
        let real = self.replace(key, value, quota, deadline);
        self.staged(|| format!("kv.{verb} {key}"), deadline, real).await
    }

    async fn replace(
        &self,
        key: &str,
        value: Option<Vec<u8>>,
        quota: usize,
        deadline: Deadline,
    ) -> Result<(), Refused> {
        let state = self.states.of(&self.hook, self.powers.paths());
        let mut content = state.content(deadline).await?;
        let before = content.bytes();
        match value {
            None if !content.entries.contains_key(key) => return Ok(()),
            None => drop(content.entries.remove(key)),
            Some(value) => drop(content.entries.insert(key.to_owned(), value)),
        }
        // A quota that was lowered does not keep a hook from making its state smaller.
        if content.bytes() > quota && content.bytes() >= before {
            return Err(Refused {
                failure: KvFailure::TooLarge,
                hint: Some(format!(
                    "its state would have {} bytes, and {quota} are agreed: the lesser of what `describe` asks for and `bytes` under [kv] in its grant file",
                    content.bytes()
                )),
            });
        }
        Ok(state.replace(content, self.states.is_held(), deadline).await?)
    }

    /// Through whoever stands between, in a test. As of a disk that hangs, an answer that does not come
    /// is an error at the deadline.
    async fn staged<T: Send>(
        &self,
        call: impl FnOnce() -> String,
        deadline: Deadline,
        real: impl Future<Output = Result<T, Refused>> + Send,
    ) -> Result<T, Refused> {
        let Some(stage) = &self.stage else { return real.await };
        let late = || Refused::from(Trouble::NoResult(NoResult::Late));
        let mut done = None;
        let refused = {
            let call = call();
            let real = Box::pin(async {
                let result = real.await;
                let succeeded = result.is_ok();
                done = Some(result);
                succeeded
            });
            timeout_at(deadline.instant().into(), stage.state(&call, real)).await
        };
        match refused {
            Err(_) => Err(late()),
            Ok(Some(words)) => Err(Refused { failure: KvFailure::Io(words), hint: None }),
            Ok(None) => done.unwrap_or_else(|| Err(late())),
        }
    }
}

fn check_key(key: &str) -> Result<(), Refused> {
    if (1..=LONGEST_KEY).contains(&key.len()) {
        return Ok(());
    }
    let words = format!("a key has 1 to {LONGEST_KEY} bytes, not {}", key.len());
    Err(Refused { failure: KvFailure::BadKey(words), hint: None })
}
