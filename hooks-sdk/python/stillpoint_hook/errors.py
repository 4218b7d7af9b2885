"""Errors, typed.

What a hook raises is a :class:`HookError`, one class for each case of the contract. What the host answers is
a :class:`SqlError`, :class:`ProcessError` or :class:`KvError`; a hook that does not catch one raises with it the
``HookError`` that fits, and anything else that it raises is :class:`Internal`.
"""

from contextlib import contextmanager

from ._host import Err
from ._host import kv as wit_kv
from ._host import process as wit_process
from ._host import sql as wit_sql
from ._host import types


class HookError(Exception):
    """Why a hook failed. The text is one line: what happened, what to do next. It is shown to the operator."""

    _case = types.HookError_Internal

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def context(self, text: str) -> "HookError":
        """The same error with more said, before: ``context: message``."""
        return self._said(f"{text}: {self.message}")

    def also(self, text: str) -> "HookError":
        """The same error with more said, after: ``message; more``."""
        return self._said(f"{self.message}; {text}")

    def _said(self, message: str) -> "HookError":
        self.message = message
        self.args = (message, *self.args[1:])
        return self

    def to_wit(self):
        """As the contract has it."""
        return self._case(self.message)


class InvalidSettings(HookError):
    """Settings are wrong. ``pointer`` is a JSON Pointer into them, ``""`` for the whole."""

    def __init__(self, pointer: str, message: str):
        super().__init__(message)
        self.pointer = pointer

    def to_wit(self):
        return types.HookError_InvalidSettings(types.SettingsError(self.pointer, self.message))


class NotApplicable(HookError):
    """The application is not here, or not running: the host may skip this hook."""

    _case = types.HookError_NotApplicable


class Denied(HookError):
    """A capability that the hook needs was not granted."""

    _case = types.HookError_Denied


class Busy(HookError):
    """The application cannot be quiesced now; later it may."""

    _case = types.HookError_Busy


class Timeout(HookError):
    """The phase ran out of its deadline, and undid what it did."""

    _case = types.HookError_Timeout


class ApplicationError(HookError):
    """The application answered with an error; ``code`` is its own (``1205``, ``55P03``)."""

    def __init__(self, code: object, message: str, retryable: bool = False):
        super().__init__(message)
        self.code = str(code)
        self.retryable = retryable

    def to_wit(self):
        return types.HookError_Application(types.AppError(self.code, self.message, self.retryable))


class Internal(HookError):
    """Anything else."""


class HostError(Exception):
    """What a call of the host answered instead of a result."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def to_hook_error(self) -> HookError:
        return Internal(self.message)


class SqlError(HostError):
    """A statement was not answered. The subclass says why."""

    #: The session is gone with this error, and every lock that it held.
    session_is_gone = False
    #: The server's own number; 0 if this is not an error of the server's.
    vendor_code = 0
    #: Five characters; empty if this is not an error of the server's.
    sqlstate = ""


class SqlDenied(SqlError):
    """Not granted; the text names what to add to which file. The session is unharmed."""

    def to_hook_error(self) -> HookError:
        return Denied(self.message)


class Unavailable(SqlError):
    """No session could be opened: server down, refused, wrong credentials."""

    def to_hook_error(self) -> HookError:
        return ApplicationError("unavailable", self.message, retryable=True)


class SqlTimeout(SqlError):
    """The time-out passed. The host cancelled the statement from a second session and closed this one."""

    session_is_gone = True

    def to_hook_error(self) -> HookError:
        return Timeout(self.message)


class ConnectionLost(SqlError):
    """The session is gone, and with it every lock that it held."""

    session_is_gone = True

    def to_hook_error(self) -> HookError:
        return ApplicationError("connection-lost", self.message, retryable=True)


class DatabaseError(SqlError):
    """The server answered with an error. The session is open, and still holds what it held."""

    def __init__(self, error):
        super().__init__(error.message)
        self.vendor_code = error.vendor_code
        self.sqlstate = error.sqlstate
        self.extras = dict(error.extras)

    def to_hook_error(self) -> HookError:
        retryable = self.sqlstate.startswith("40")
        return ApplicationError(self.vendor_code or self.sqlstate, self.message, retryable)


class SqlLimit(SqlError):
    """A limit of the host: rows, bytes, open connections."""

    def to_hook_error(self) -> HookError:
        return Internal(f"limit: {self.message}")


class Unsupported(SqlError):
    """The server, or this host, has no such thing."""

    def to_hook_error(self) -> HookError:
        return Internal(f"unsupported: {self.message}")


class RowError(Exception):
    """An answer did not have the shape that the hook expected."""


class ProcessError(HostError):
    """A program was not run to its end. The subclass says why."""


class ProcessDenied(ProcessError):
    """Not granted: the command, its arguments, or what it reads on stdin."""

    def to_hook_error(self) -> HookError:
        return Denied(self.message)


class ProgramNotFound(ProcessError):
    """Granted, but there is no such file."""

    def to_hook_error(self) -> HookError:
        return ApplicationError("not-found", f"no such program: {self.message}")


class ProcessTimeout(ProcessError):
    """Killed with all its children; ``output`` is what it had written."""

    def __init__(self, output):
        super().__init__("the program did not end in time and was killed")
        self.output = output

    def to_hook_error(self) -> HookError:
        return Timeout(self.message)


class ProgramFailed(ProcessError):
    """It could not be started."""

    def to_hook_error(self) -> HookError:
        return ApplicationError("failed", self.message)


class KvError(HostError):
    """The state could not be read or written. The subclass says why."""


class KvDenied(KvError):
    """Not granted, or not in this phase."""

    def to_hook_error(self) -> HookError:
        return Denied(self.message)


class TooLarge(KvError):
    """Keys and values would pass the granted bytes; what was there is there still."""


_SQL_TIMED_OUT = "the database did not answer in time; the host cancelled the statement and closed the session"
_KV_DENIED = "no key-value state is granted: add `kv` to the hook's grant file"

_KINDS = {
    wit_sql.Error_Denied: SqlDenied,
    wit_sql.Error_Unavailable: Unavailable,
    wit_sql.Error_Timeout: lambda _: SqlTimeout(_SQL_TIMED_OUT),
    wit_sql.Error_ConnectionLost: ConnectionLost,
    wit_sql.Error_Database: DatabaseError,
    wit_sql.Error_Limit: SqlLimit,
    wit_sql.Error_Unsupported: Unsupported,
    wit_sql.Error_Other: SqlError,
    wit_process.Error_Denied: ProcessDenied,
    wit_process.Error_NotFound: ProgramNotFound,
    wit_process.Error_Timeout: ProcessTimeout,
    wit_process.Error_Failed: ProgramFailed,
    wit_process.Error_Other: ProcessError,
    wit_kv.Error_Denied: lambda _: KvDenied(_KV_DENIED),
    wit_kv.Error_TooLarge: lambda _: TooLarge("the granted key-value bytes are used up"),
    wit_kv.Error_Io: KvError,
    wit_kv.Error_Other: KvError,
}


@contextmanager
def calling():
    """A call of the host: its typed error is raised as the exception that fits."""
    failed = None
    try:
        yield
    except Err as error:
        failed = error.value
    if failed is not None:
        raise _KINDS[type(failed)](getattr(failed, "value", None))


def to_hook_error(error: Exception) -> HookError:
    """What a hook raised, as one of the contract's errors."""
    if isinstance(error, HookError):
        return error
    if isinstance(error, HostError):
        return error.to_hook_error()
    return Internal(f"{type(error).__name__}: {error}")
