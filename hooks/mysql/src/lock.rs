//! Taking the lock, and giving it back whatever happened.
//!
//! Each attempt has a session of its own. Everything the attempt takes is tied to that session, so that
//! the session's end is the end of it; and a session that is not in the server's process list any more
//! holds nothing (servers take a session off the list after they released what it held).

use std::time::Duration;

use stillpoint_hook::sql::{Connection, Error, FromValue, Value};
use stillpoint_hook::{HookError, debug, info, run};

use crate::guard::CACHE_AGE;
use crate::server::{CONNECTION, Server, Status, seconds};
use crate::settings::Settings;
use crate::statements as s;

/// Time that is kept for giving back: nothing is begun when less than this is left of the phase.
pub const RESERVE: Duration = Duration::from_secs(2);
/// How long a statement that gives back may take.
const GIVE_BACK: Duration = Duration::from_millis(500);
/// How long the lock may take beyond its own time-out: it waits in several steps, and the server
/// counts anew in each.
const LOCK_GRACE: Duration = Duration::from_millis(250);
/// After the hold budget, the server itself ends the session.
const DEAD_MAN: Duration = Duration::from_secs(5);
/// How often, and how fast, the process list is asked whether a session is gone.
const GONE_POLLS: u32 = 20;
const GONE_POLL: Duration = Duration::from_millis(25);
/// InnoDB's answer about transactions was from before the lock so often in a row: somebody polls it.
const STALE_ANSWERS: u32 = 3;

/// ER_LOCK_WAIT_TIMEOUT.
const LOCK_WAIT_TIMEOUT: i32 = 1205;

/// A session that locks.
#[derive(Debug)]
pub struct Holder {
    /// Open as long as the lock is held.
    pub session: Connection,
    /// The server's number of it.
    pub id: String,
    instance_locked: bool,
}

/// The lock, granted and checked.
#[derive(Debug)]
pub struct Locked {
    /// Who holds it.
    pub holder: Holder,
    /// How long the last request waited.
    pub waited: Duration,
    /// What was left of the phase when it was granted.
    pub granted_at: Duration,
    /// How often it was given back because a transaction was open.
    pub retries: u32,
    /// Transactions that are open under it: none, unless the operator accepts them.
    pub open_transactions: usize,
}

/// The lock was granted, and this was found under it.
struct Granted {
    waited: Duration,
    /// What was left of the phase then.
    at: Duration,
    unfinished: Unfinished,
}

/// What the check under the lock found.
enum Unfinished {
    Nothing,
    Open(OpenTransactions),
    /// The applier of a replica has so many temporary tables, which are in no file.
    TemporaryTables(u64),
    /// The answer was from before the lock.
    Stale,
}

struct OpenTransactions {
    count: usize,
    session: i64,
    seconds: i64,
}

/// Locks, with no transaction open; gives back and tries again, within the settings' bounds, while one
/// is.
///
/// # Errors
/// Whatever happened. Then nothing is held any more, or the error says that this could not be proven.
pub fn acquire(
    control: &Connection,
    server: &Server,
    settings: &Settings,
) -> Result<Locked, HookError> {
    let mut tries = Tries::default();
    loop {
        let mut holder = open_holder()?;
        let granted = match attempt(&mut holder, server, settings) {
            Ok(granted) => granted,
            Err(error) => return Err(with_proof(error, give_back(holder, control, server))),
        };
        let Some(objection) = tries.objection(&granted.unfinished, settings) else {
            let open_transactions = granted.unfinished.count();
            let Granted { waited, at, .. } = granted;
            let retries = tries.retries;
            return Ok(Locked { holder, waited, granted_at: at, retries, open_transactions });
        };

        let given_back = give_back(holder, control, server);
        if tries.are_over(settings) {
            return Err(with_proof(objection, given_back));
        }
        given_back.map_err(HookError::Internal)?;
        debug!("the lock was given back: {}", objection.message());
        tries.retries += 1;
        run::sleep(settings.open_transaction_wait.max(CACHE_AGE));
    }
}

/// What was tried so far.
#[derive(Default)]
struct Tries {
    retries: u32,
    /// Answers from before the lock, in a row.
    stale: u32,
}

impl Tries {
    /// Why this grant of the lock will not do, if it will not.
    fn objection(&mut self, found: &Unfinished, settings: &Settings) -> Option<HookError> {
        match found {
            Unfinished::Nothing => None,
            Unfinished::Stale => {
                self.stale += 1;
                Some(stale_busy())
            }
            Unfinished::TemporaryTables(count) => {
                self.stale = 0;
                Some(temporary_tables_busy(*count, self.retries))
            }
            Unfinished::Open(open) => {
                self.stale = 0;
                let accepted = settings.accept_open_transactions && self.are_over(settings);
                (!accepted).then(|| open.busy(self.retries))
            }
        }
    }

    fn are_over(&self, settings: &Settings) -> bool {
        self.stale >= STALE_ANSWERS
            || self.retries >= settings.open_transaction_retries
            || run::remaining_but(RESERVE) <= settings.open_transaction_wait
            || run::cancelled()
    }
}

fn open_holder() -> Result<Holder, HookError> {
    let session = Connection::open(CONNECTION)?;
    let id = session.session_id()?;
    Ok(Holder { session, id, instance_locked: false })
}

/// One attempt on one session: time-outs, locks, check. On an error the caller gives back.
fn attempt(
    holder: &mut Holder,
    server: &Server,
    settings: &Settings,
) -> Result<Granted, HookError> {
    let lock_wait = lock_wait(settings)?;
    let time_outs = [seconds(lock_wait), seconds(settings.hold_budget + DEAD_MAN)];
    holder.session.execute(s::SESSION, &time_outs, Some(run::remaining_but(RESERVE)))?;

    let patience = || Some(run::remaining_but(RESERVE).min(lock_wait + LOCK_GRACE));
    if let Some((lock, _)) = server.dialect.instance_lock() {
        // Before the answer is known: a request that timed out may have been granted.
        holder.instance_locked = true;
        let locked = holder.session.execute(lock, &[], patience());
        locked.map_err(|error| refused(error, lock, lock_wait, server))?;
    }
    let before = run::remaining();
    let locked = holder.session.execute(s::LOCK_TABLES, &[], patience());
    locked.map_err(|error| refused(error, s::LOCK_TABLES, lock_wait, server))?;
    let at = run::remaining();
    let waited = before.saturating_sub(at);

    let unfinished = unfinished(&holder.session, server)?;
    Ok(Granted { waited, at, unfinished })
}

/// In whole seconds, as the server wants it, and no longer than the phase has time for.
fn lock_wait(settings: &Settings) -> Result<Duration, HookError> {
    let time = run::remaining_but(RESERVE + LOCK_GRACE).as_secs();
    let seconds = settings.lock_wait.as_secs().min(time);
    if seconds == 0 {
        return Err(HookError::Timeout(
            "less than 3 s are left for the lock, so it was not asked for: give the phase more time"
                .into(),
        ));
    }
    Ok(Duration::from_secs(seconds))
}

/// A lock was not granted.
fn refused(error: Error, statement: &str, lock_wait: Duration, server: &Server) -> HookError {
    let waited_out = error == Error::Timeout || error.vendor_code() == Some(LOCK_WAIT_TIMEOUT);
    if !waited_out {
        return server.explain(error, false).context(statement);
    }
    HookError::Busy(format!(
        "{statement} was not granted within {} s, because other statements were running, and was \
         taken back: try again later, or raise `lock-wait-timeout-seconds`",
        lock_wait.as_secs()
    ))
}

/// What is open now and not in the files: transactions, and an applier's temporary tables. The applier
/// stands still under the lock by itself, so that it is never stopped, and nothing has to be restored.
fn unfinished(session: &Connection, server: &Server) -> Result<Unfinished, HookError> {
    if server.replica {
        let open = Status::ask(session)?.open_temporary_tables();
        if open > 0 {
            return Ok(Unfinished::TemporaryTables(open));
        }
    }
    open_transactions(session, server)
}

/// Transactions with changes that are open now. Under the lock they can neither end nor begin.
fn open_transactions(session: &Connection, server: &Server) -> Result<Unfinished, HookError> {
    let limit = || Some(run::remaining_but(RESERVE));
    session.execute(s::CANARY, &[], limit())?;
    let rows = server.privileged(session.query(s::OPEN_TRANSACTIONS, &[], limit()))?;
    session.execute(s::END_CANARY, &[], limit())?;

    let mut fresh = false;
    let mut oldest: Option<OpenTransactions> = None;
    for row in rows.iter() {
        if row.get("own")? {
            fresh = true;
            continue;
        }
        if let Some(oldest) = &mut oldest {
            oldest.count += 1;
        } else {
            oldest = Some(OpenTransactions {
                count: 1,
                session: row.get("id")?,
                seconds: row.get("time")?,
            });
        }
    }
    Ok(match oldest {
        _ if !fresh => Unfinished::Stale,
        Some(open) => Unfinished::Open(open),
        None => Unfinished::Nothing,
    })
}

impl Unfinished {
    fn count(&self) -> usize {
        match self {
            Unfinished::Open(open) => open.count,
            Unfinished::Nothing | Unfinished::TemporaryTables(_) | Unfinished::Stale => 0,
        }
    }
}

impl OpenTransactions {
    fn busy(&self, retries: u32) -> HookError {
        HookError::Busy(format!(
            "{} transaction(s) with changes were open under the lock, the oldest of session {} for {} \
             s, also after {retries} retries; a copy would roll them back: try again later, raise \
             `open-transaction-retries`, or set `accept-open-transactions`",
            self.count, self.session, self.seconds
        ))
    }
}

fn temporary_tables_busy(count: u64, retries: u32) -> HookError {
    HookError::Busy(format!(
        "the applier of this replica had {count} temporary table(s) open under the lock, also after \
         {retries} retries; a copy would not have them, and its replication would stop: try again \
         later, raise `open-transaction-retries`, or replicate rows (binlog_format = ROW)"
    ))
}

fn stale_busy() -> HookError {
    HookError::Busy(
        "another client reads information_schema.innodb_trx more often than every 0.1 s, so that InnoDB \
         only answers from its cache: pause that monitor"
            .into(),
    )
}

/// Gives back what a session holds, closes it, and proves on the control connection that the server
/// let go.
///
/// # Errors
/// What could not be proven, in words.
pub fn give_back(holder: Holder, control: &Connection, server: &Server) -> Result<(), String> {
    let Holder { session, id, instance_locked } = holder;
    unlock(&session, server, instance_locked);
    drop(session);
    prove_gone(&id, control)
}

/// What gives back what a session took, in reverse.
fn unlock_statements(
    server: &Server,
    instance_locked: bool,
) -> impl Iterator<Item = &'static str> + use<> {
    let instance = server.dialect.instance_lock().map(|(_, unlock)| unlock);
    [Some(s::UNLOCK_TABLES), instance.filter(|_| instance_locked)].into_iter().flatten()
}

/// The quick way, if the session is there to take it: closing releases too, but when the server
/// notices.
fn unlock(session: &Connection, server: &Server, instance_locked: bool) {
    for statement in unlock_statements(server, instance_locked) {
        if !session.is_alive() {
            return;
        }
        if let Err(error) = session.execute(statement, &[], Some(GIVE_BACK)) {
            let error = HookError::from(error);
            info!("{statement}: {}: the session is closed instead", error.message());
        }
    }
}

/// A session that is off the process list holds nothing, and nothing waits for it.
fn prove_gone(id: &str, control: &Connection) -> Result<(), String> {
    let unproven = |why: &str| {
        format!(
            "it could not be proven that the server released the lock ({why}): if writes hang, run \
             KILL {id}"
        )
    };
    let number = Value::Text(id.into());
    let Some(number) = i64::from_value(&number) else {
        return Err(unproven("the session's number is not known"));
    };
    for _ in 0..GONE_POLLS {
        let count = control
            .query(s::SESSION_COUNT, &[number.into()], Some(GIVE_BACK))
            .map_err(HookError::from)
            .and_then(|rows| Ok(rows.first()?.at::<i64>(0)?));
        match count {
            Ok(0) => return Ok(()),
            Ok(_) => run::sleep(GONE_POLL),
            Err(error) => return Err(unproven(error.message())),
        }
    }
    Err(unproven("its session is still there"))
}

/// The error that came first, and that it could not be undone if it could not.
fn with_proof(error: HookError, given_back: Result<(), String>) -> HookError {
    match given_back {
        Ok(()) => error,
        Err(unproven) => error.also(&unproven),
    }
}

/// Releases on the good path: the statements' success is the proof; without it, the session's end is.
///
/// # Errors
/// What could not be proven, in words.
pub fn release(holder: Holder, control: &Connection, server: &Server) -> Result<(), String> {
    let limit = Some(GIVE_BACK);
    let mut statements = unlock_statements(server, holder.instance_locked);
    if statements.all(|statement| holder.session.execute(statement, &[], limit).is_ok()) {
        return Ok(());
    }
    let id = holder.id;
    drop(holder.session);
    prove_gone(&id, control)
}
