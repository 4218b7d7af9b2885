"""Quiesces MariaDB: a global read lock, from before the freeze until after the thaw, and where the binary log
stood meanwhile. The lock belongs to the session, so that it ends with the hook, whatever happens to either."""

import posixpath

from stillpoint_hook import (
    HELD_BEFORE_FREEZE,
    Busy,
    Consistency,
    Description,
    Frozen,
    Hook,
    Internal,
    NotApplicable,
    Plan,
    SqlError,
    component,
    needs_sql,
    run,
    sql,
)

# The connection that the hook asks for, and uses unless its settings name another.
CONNECTION = "main"

# What the hook asks for, whole and exact: the operator grants these texts, and the host sends no other.
FILES = "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename"
BOUND_THE_WAIT = "SET SESSION lock_wait_timeout = 5"
LOCK = "FLUSH TABLES WITH READ LOCK"
UNFINISHED = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"
FLUSH_LOGS = "FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS"
POSITION = "SHOW MASTER STATUS"
UNLOCK = "UNLOCK TABLES"
STATEMENTS = [FILES, BOUND_THE_WAIT, LOCK, UNFINISHED, FLUSH_LOGS, POSITION, UNLOCK]

# How often the lock is tried while transactions are open under it, and the pause between: InnoDB answers from a
# cache that is up to 0.1 s old. Times are seconds.
TRIES = 10
PAUSE = 0.15
# Nothing is begun with less than this left of the phase: it is for giving back.
RESERVE = 2.0
GIVE_BACK = 0.5


class Quiesce(Hook):
    """The hook: one object lives through one run."""

    def __init__(self):
        # Open from `prepare` on. While the lock is held it is this session's.
        self.session = None
        # Where the binary log stood when everything was quiet.
        self.position = None

    @staticmethod
    def describe():
        return Description(
            name="mariadb-lock",
            version="0.1.0",
            summary="Locks MariaDB, and saves where its binary log stands",
            freeze_budget_ms=20_000,
            settings_schema={
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "connection": {
                        "description": "The connection to lock: a name that the grant has under [[sql]]",
                        "type": "string",
                        "minLength": 1,
                        "default": CONNECTION,
                    }
                },
            },
            needs=[
                needs_sql(
                    CONNECTION,
                    [sql.Engine.MARIADB],
                    STATEMENTS,
                    "to find its files, to stop writes while the snapshot is taken, and to let them go on",
                )
            ],
        )

    def prepare(self, settings):
        """Everything that can be found out before anything is held."""
        self.session = sql.Connection(settings.get("connection", CONNECTION))
        server = self.session.info
        if server.engine is not sql.Engine.MARIADB:
            raise NotApplicable(f"{server.version} is not MariaDB")
        files = self.session.query(FILES, timeout=run.remaining_but(GIVE_BACK)).first()
        if files.is_null(1):
            raise NotApplicable("the server writes no binary log: set log_bin")
        position(self.session)  # a missing privilege is found before anything is locked
        return Plan(f"MariaDB {server.version}", [files.text(0), posixpath.dirname(files.text(1))])

    def pre_freeze(self):
        """Other clients wait from here to `post_thaw`."""
        session = self.open_session()
        try:
            locked_at = lock_with_nothing_open(session)
            # What was committed is in the binary log; with this it is in InnoDB's files, too.
            session.execute(FLUSH_LOGS, timeout=run.remaining_but(RESERVE))
            self.position = position(session)
        except BaseException:
            self.give_back()
            raise
        file, offset = self.position
        held = round((locked_at - run.remaining()) * 1e9)
        metadata = {"binlog-file": file, "binlog-position": offset, HELD_BEFORE_FREEZE: held}
        return Frozen(Consistency.APPLICATION, metadata)

    def confirm(self):
        """The session that locked still answers, and nothing was written meanwhile."""
        now = position(self.open_session())
        if now != self.position:
            raise Internal(f"the lock did not hold: the binary log was at {self.position} and is at {now}")

    def post_thaw(self, outcome):
        """Called whenever `pre_freeze` was, also when that failed: nothing left to do is a success."""
        session, self.session = self.session, None
        if session is not None:
            session.execute(UNLOCK, timeout=GIVE_BACK)
            session.close()

    def open_session(self):
        if self.session is None:
            raise Internal("no session is open")
        return self.session

    def give_back(self):
        """Closing the session releases too, but only once the server has noticed."""
        session, self.session = self.session, None
        try:
            session.execute(UNLOCK, timeout=GIVE_BACK)
        except SqlError:
            pass  # The error that led here is the one to tell.
        session.close()


def lock_with_nothing_open(session):
    """Takes the lock with no transaction open under it: a copy would roll that back. Gives what was left of the
    phase when the lock was granted."""
    session.execute(BOUND_THE_WAIT, timeout=run.remaining_but(RESERVE))
    for _ in range(TRIES):
        session.execute(LOCK, timeout=run.remaining_but(RESERVE))
        granted_at = run.remaining()
        unfinished = session.query(UNFINISHED, timeout=run.remaining_but(RESERVE)).first().integer(0)
        if unfinished == 0:
            return granted_at
        session.execute(UNLOCK, timeout=GIVE_BACK)
        if run.cancelled() or run.remaining_but(RESERVE) <= PAUSE:
            break
        run.sleep(PAUSE)
    raise Busy("transactions were open whenever the lock was granted: try later")


def position(session):
    """A place in the binary log. Every commit moves it."""
    row = session.query(POSITION, timeout=run.remaining_but(GIVE_BACK)).first()
    return row.text("File"), row.integer("Position")


Lifecycle = component(Quiesce)
