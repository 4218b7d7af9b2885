"""SQL on connections that the operator named. A hook sees no address and no password, and runs only the
statements that it asked for and that were granted, as whole texts; what varies is a parameter (``?``)."""

from typing import Iterator, List, Optional, Sequence, Union

from ._host import nanoseconds
from ._host import sql as _sql
from .errors import ConnectionLost, RowError, calling

Engine = _sql.Engine
ServerInfo = _sql.ServerInfo
Param = Union[None, bool, int, float, str, bytes]
Column = Union[str, int]


class Connection:
    """One server session. It is open until it is closed, and so are its locks: keep it in the hook from
    ``pre_freeze`` to ``post_thaw``. The host never reconnects behind it."""

    def __init__(self, name: str):
        """Opens a session to what the operator calls ``name``, bounded by the operator's connect time-out and by
        the phase. Raises :class:`SqlDenied`, :class:`Unavailable`, :class:`SqlLimit`, :class:`SqlTimeout`."""
        with calling():
            self._session = _sql.open(name)

    @property
    def info(self) -> ServerInfo:
        """Engine and version, as the server said when the session was opened. No round trip."""
        return self._open().info()

    @property
    def session_id(self) -> str:
        """The server's id of this session, as other sessions see it. No round trip."""
        with calling():
            return self._open().session_id()

    @property
    def is_alive(self) -> bool:
        """Whether the session is still open: the host asks the server by a ping."""
        return self._session is not None and self._session.is_alive()

    def query(self, statement: str, params: Sequence[Param] = (), timeout: Optional[float] = None) -> "RowSet":
        """Runs a statement and gives its rows.

        ``timeout`` in seconds is clamped to what is left of the phase, which is also what counts without one (or
        the operator's limit for the connection, if that is less). Raises a :class:`SqlError`: after
        :class:`SqlTimeout` and :class:`ConnectionLost` the session is gone with its locks; after
        :class:`DatabaseError` it is open and holds what it held.
        """
        values = [_to_value(value) for value in params]
        with calling():
            return RowSet(self._open().query(statement, values, nanoseconds(timeout)))

    def execute(self, statement: str, params: Sequence[Param] = (), timeout: Optional[float] = None) -> int:
        """Runs a statement without rows; gives the number of affected rows, 0 where the server tells none.
        ``timeout`` and errors as for :meth:`query`."""
        values = [_to_value(value) for value in params]
        with calling():
            return self._open().execute(statement, values, nanoseconds(timeout))

    def close(self) -> None:
        """Closes the session; the server releases its locks. A second time there is nothing to do."""
        session, self._session = self._session, None
        if session is not None:
            session.__exit__(None, None, None)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self):
        if self._session is None:
            raise ConnectionLost("the hook closed this session")
        return self._session


def granted() -> List[str]:
    """The names of the connections that are granted to this hook, sorted. Contacts nothing."""
    return _sql.granted()


class RowSet:
    """What a statement gave. ``truncated``: there was more than the host's limits allow, by default 10,000 rows
    and 1 MiB."""

    def __init__(self, answer):
        self.columns = [column.name for column in answer.columns]
        self.rows = [Row(self.columns, values) for values in answer.rows]
        self.truncated = answer.truncated

    def first(self) -> "Row":
        """The first row. Raises :class:`RowError` if there is none."""
        if not self.rows:
            raise RowError("the answer has no row")
        return self.rows[0]

    def complete(self) -> "RowSet":
        """The set itself. Raises :class:`RowError` if the host cut it short."""
        if self.truncated:
            raise RowError("the answer was cut at the host's limit")
        return self

    def __iter__(self) -> Iterator["Row"]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


_TEXTS = (_sql.Value_Text, _sql.Value_Decimal, _sql.Value_Temporal, _sql.Value_Other)
_WHOLE = (_sql.Value_Int64, _sql.Value_Uint64)


class Row:
    """One row. Columns go by their name, upper and lower case the same, or by their number from 0.

    Reading is as lenient as servers are various (a number may come as its text), and never loses anything. A
    value that cannot be read as what is asked for is a :class:`RowError`.
    """

    def __init__(self, columns, values):
        self._columns = [name.lower() for name in columns]
        self._values = values

    def value(self, column: Column):
        """The value as the contract has it."""
        try:
            index = column if isinstance(column, int) else self._columns.index(column.lower())
            return self._values[index]
        except (ValueError, IndexError):
            raise RowError(f"the answer has no column {column}") from None

    def is_null(self, column: Column) -> bool:
        """Whether it is NULL."""
        return isinstance(self.value(column), _sql.Value_Null)

    def text(self, column: Column) -> str:
        """A text, a number as text, or bytes that are UTF-8."""
        value = self.value(column)
        if isinstance(value, _TEXTS + _WHOLE):
            return str(value.value)
        if isinstance(value, _sql.Value_Binary):
            try:
                return value.value.decode()
            except UnicodeDecodeError:
                pass
        raise _wrong(column, "a text", value)

    def integer(self, column: Column) -> int:
        """A whole number, or the text of one."""
        value = self.value(column)
        if isinstance(value, _WHOLE):
            return value.value
        try:
            if isinstance(value, _TEXTS):
                return int(value.value, 10)
        except ValueError:
            pass
        raise _wrong(column, "a whole number", value)

    def boolean(self, column: Column) -> bool:
        """True or false, 1 or 0, ON or OFF, YES or NO."""
        value = self.value(column)
        word = str(getattr(value, "value", "")).lower()
        if word in ("1", "on", "yes", "true"):
            return True
        if word in ("0", "off", "no", "false"):
            return False
        raise _wrong(column, "true or false", value)

    def binary(self, column: Column) -> bytes:
        """Bytes."""
        value = self.value(column)
        if isinstance(value, _sql.Value_Binary):
            return value.value
        raise _wrong(column, "bytes", value)


def _wrong(column, wanted, value) -> RowError:
    found = type(value).__name__.removeprefix("Value_").lower()
    return RowError(f"column {column}: {wanted} was expected, and it is {found}")


def _to_value(value: Param):
    # bool first: it is an int, too.
    if value is None:
        return _sql.Value_Null()
    if isinstance(value, bool):
        return _sql.Value_Boolean(value)
    if isinstance(value, int):
        return _sql.Value_Int64(value) if value < 1 << 63 else _sql.Value_Uint64(value)
    if isinstance(value, float):
        return _sql.Value_Float64(value)
    if isinstance(value, str):
        return _sql.Value_Text(value)
    if isinstance(value, bytes):
        return _sql.Value_Binary(value)
    raise TypeError(f"a parameter is None, bool, int, float, str or bytes; not {type(value).__name__}")
