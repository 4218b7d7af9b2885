//! Asking a run to stop.

use tokio::sync::watch;

/// The side that asks.
#[derive(Debug)]
pub struct CancelSource(watch::Sender<bool>);

/// The side that is asked. Clones see the same request.
#[derive(Clone, Debug)]
pub struct CancelToken(watch::Receiver<bool>);

impl Default for CancelSource {
    fn default() -> Self {
        Self::new()
    }
}

impl CancelSource {
    /// A source that has not asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Asks. Hooks see it in `run.cancelled`, and their sleeps end.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// A token of this source.
    #[must_use]
    pub fn token(&self) -> CancelToken {
        CancelToken(self.0.subscribe())
    }
}

impl CancelToken {
    /// A token that is never asked.
    #[must_use]
    pub fn never() -> Self {
        CancelSource::new().token()
    }

    /// True once asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once asked; never if the source is gone without asking.
    pub async fn cancelled(&self) {
        let mut asked = self.0.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
