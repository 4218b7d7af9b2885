"""Write stillpoint hooks in Python. See the README of this package."""

from . import kv, log, process, run, sql
from .errors import (
    ApplicationError,
    Busy,
    ConnectionLost,
    DatabaseError,
    Denied,
    HookError,
    Internal,
    InvalidSettings,
    KvDenied,
    KvError,
    NotApplicable,
    ProcessDenied,
    ProcessError,
    ProcessTimeout,
    ProgramFailed,
    ProgramNotFound,
    RowError,
    SqlDenied,
    SqlError,
    SqlLimit,
    SqlTimeout,
    Timeout,
    TooLarge,
    Unavailable,
    Unsupported,
)
from .hook import (
    HELD_BEFORE_FREEZE,
    Consistency,
    Description,
    Frozen,
    Hook,
    Outcome,
    Plan,
    component,
    needs_kv,
    needs_program,
    needs_sql,
)

__version__ = "0.1.0"
