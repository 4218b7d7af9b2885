//! Before the lock is asked for: is something in its way? A lock request that waits makes everybody
//! behind it wait too, so the way is looked at first (the idea is Percona XtraBackup's).

use std::time::Duration;

use stillpoint_hook::sql::Connection;
use stillpoint_hook::{HookError, info, run};

use crate::server::{Server, seconds};
use crate::settings::Settings;
use crate::statements as s;

/// How often the way is looked at.
const POLL: Duration = Duration::from_millis(500);

/// InnoDB renews the cache behind `innodb_trx` only when nobody has read it for 0.1 s.
pub const CACHE_AGE: Duration = Duration::from_millis(120);

/// What stands in the way of the lock.
struct InTheWay {
    /// "statement" or "transaction".
    what: &'static str,
    session: i64,
    seconds: i64,
    count: usize,
}

/// Waits until no long statement runs and no transaction with changes has been open for long; at
/// most as long as the settings say, and as the phase has time.
///
/// # Errors
/// [`HookError::Busy`] naming the oldest one, or what the statements fail with.
pub fn wait_for_a_clear_way(
    control: &Connection,
    server: &Server,
    settings: &Settings,
) -> Result<(), HookError> {
    let mut left = settings.wait_for_long_queries;
    loop {
        let Some(found) = in_the_way(control, server, settings)? else {
            return Ok(());
        };
        if left.is_zero() || run::remaining() <= POLL || run::cancelled() {
            return Err(found.busy(settings));
        }
        info!(
            "waiting for a {} of session {} that has been running for {} s",
            found.what, found.session, found.seconds
        );
        let pause = left.min(POLL);
        run::sleep(pause);
        left -= pause;
    }
}

/// A last look just before the lock, at statements only: `innodb_trx` must not be read then, see
/// [`s::OPEN_TRANSACTIONS`].
///
/// # Errors
/// As [`wait_for_a_clear_way`].
pub fn last_look(
    control: &Connection,
    server: &Server,
    settings: &Settings,
) -> Result<(), HookError> {
    let statement = server.dialect.long_queries();
    match find(control, server, settings, "statement", statement)? {
        Some(found) => Err(found.busy(settings)),
        None => Ok(()),
    }
}

/// Waits until the cache behind `innodb_trx`, which was read when the phase had `looked` left, may be
/// renewed: the check under the lock would get an answer from before the lock, and give the lock back.
pub fn let_the_cache_age(looked: Duration) {
    let age = looked.saturating_sub(run::remaining());
    let rest = CACHE_AGE.saturating_sub(age);
    if !rest.is_zero() {
        run::sleep(rest);
    }
}

fn in_the_way(
    control: &Connection,
    server: &Server,
    settings: &Settings,
) -> Result<Option<InTheWay>, HookError> {
    for (what, statement) in
        [("statement", server.dialect.long_queries()), ("transaction", s::LONG_TRANSACTIONS)]
    {
        let found = find(control, server, settings, what, statement)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn find(
    control: &Connection,
    server: &Server,
    settings: &Settings,
    what: &'static str,
    statement: &str,
) -> Result<Option<InTheWay>, HookError> {
    let threshold = [seconds(settings.long_query_threshold)];
    let rows = server.privileged(control.query(statement, &threshold, None))?;
    let Some(oldest) = rows.iter().next() else {
        return Ok(None);
    };
    Ok(Some(InTheWay {
        what,
        session: oldest.at(0)?,
        seconds: oldest.at(1)?,
        count: rows.rows.len(),
    }))
}

impl InTheWay {
    fn busy(&self, settings: &Settings) -> HookError {
        HookError::Busy(format!(
            "{} long {}(s) in the way of the lock, the oldest of session {} for {} s (threshold {} s, \
             waited {} s): try again later, or raise `wait-for-long-queries-seconds`",
            self.count,
            self.what,
            self.session,
            self.seconds,
            settings.long_query_threshold.as_secs(),
            settings.wait_for_long_queries.as_secs(),
        ))
    }
}
