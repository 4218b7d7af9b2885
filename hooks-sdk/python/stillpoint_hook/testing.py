"""A scripted host for unit tests: no server, no component. The clock is a fake one; times are seconds."""

from typing import Callable, Dict, List, Tuple

from . import _host
from ._host import Err, types

_MOST_KEY_BYTES = 128


class _Answer:
    def __init__(self, columns=(), lines=(), affected=0, error=None, kills=False, never=False):
        self.columns, self.lines, self.affected = columns, lines, affected
        self.error, self.kills, self.never = error, kills, never


def rows(names, *lines) -> _Answer:
    """An answer: rows under these column names."""
    return _Answer(columns=names, lines=lines)


def affected(count: int) -> _Answer:
    """An answer: no rows, and so many that were changed."""
    return _Answer(affected=count)


def database_error(vendor_code: int, sqlstate: str, message: str) -> _Answer:
    """An answer: an error of the server. The session stays open."""
    return _Answer(error=_host.sql.Error_Database(_host.sql.DbError(sqlstate, vendor_code, message, [])))


def lost() -> _Answer:
    """An answer: the session is lost."""
    return _Answer(error=_host.sql.Error_ConnectionLost("the server closed the session"), kills=True)


def never() -> _Answer:
    """An answer that never comes: the statement runs into its time-out, and the host closes the session."""
    return _Answer(never=True)


class Script:
    """The answers to one statement."""

    def __init__(self):
        self.left: List[_Answer] = []

    def answers(self, answer: _Answer) -> "Script":
        """The next answer; the last one is repeated."""
        self.left.append(answer)
        return self


class FakeHost:
    """The host of all hooks in this process, until it is closed.

    At the start: one connection ``main`` to a MariaDB, phase ``pre-freeze`` with 60 s left, no program, 64 KiB of
    state. A statement without an answer is denied. ``order`` is what the hook did, in words: ``open 1 main``,
    ``1 UNLOCK TABLES``, ``close 1``, ``sleep 0.15 s``, ``run tool --flag``. ``lines`` is what it logged.
    """

    def __init__(self):
        self.order: List[str] = []
        self.lines: List[Tuple[str, str, list]] = []
        self.state: Dict[str, bytes] = {}
        self.state_bytes = 64 * 1024
        self.clock = 0.0
        self.cancelled = False
        self._connections = {"main": (_host.sql.Engine.MARIADB, "10.11.6-MariaDB")}
        self._refused: Dict[str, str] = {}
        self._scripts: Dict[str, Script] = {}
        self._programs: Dict[str, Callable] = {}
        self._sessions: List[_Session] = []
        self.begin(types.Phase.PRE_FREEZE, 60.0)
        self._replaced = []
        self._install()

    def connection(self, name: str, engine, version: str) -> None:
        """Grants a connection, or changes what kind of server is behind one."""
        self._connections[name] = (engine, version)

    def refuse(self, name: str, why: str) -> None:
        """From now on no session can be opened there."""
        self._refused[name] = why

    def on(self, statement: str) -> Script:
        """Scripts the answers to a statement, in order. Scripting it again starts anew."""
        script = self._scripts[_folded(statement)] = Script()
        return script

    def program(self, command: str, behaviour: Callable) -> None:
        """Grants a program: ``behaviour(args, stdin)`` gives its output, or raises ``Err``."""
        self._programs[command] = behaviour

    def begin(self, phase, budget: float) -> None:
        """Begins a phase with this much time."""
        self._phase = phase
        self._end = self.clock + budget

    def advance(self, seconds: float) -> None:
        """Lets time pass outside the hook."""
        self.clock += seconds

    def kill(self, number: int) -> None:
        """Ends a session from outside; sessions are numbered from 1."""
        self._sessions[number - 1].alive = False
        self.order.append(f"killed {number}")

    @property
    def open_sessions(self) -> List[int]:
        """The numbers of the sessions that are open."""
        return [session.number for session in self._sessions if session.open and session.alive]

    def close(self) -> None:
        """The host is none any more."""
        for module, name, before in reversed(self._replaced):
            setattr(module, name, before)
        self._replaced = []

    def _install(self) -> None:
        functions = {
            _host.sql: {"open": self._open, "granted": lambda: sorted(self._connections)},
            _host.process: {"run": self._run},
            _host.kv: {"get": self._get, "set": self._set, "delete": self._delete, "keys": lambda: sorted(self.state)},
            _host.log: {"write": lambda *line: self.lines.append(line)},
            _host.run: {
                "get_info": lambda: _host.run.Info("test", "test", False),
                "current_phase": lambda: self._phase,
                "remaining": lambda: round(self._left() * 1e9),
                "cancelled": lambda: self.cancelled,
                "sleep": self._sleep,
            },
        }
        for module, fakes in functions.items():
            for name, fake in fakes.items():
                self._replaced.append((module, name, getattr(module, name)))
                setattr(module, name, fake)

    def _left(self) -> float:
        return max(0.0, self._end - self.clock)

    def _sleep(self, duration: int) -> None:
        self.order.append(f"sleep {duration / 1e9:g} s")
        if not self.cancelled:
            self.clock += min(duration / 1e9, self._left())

    def _open(self, name: str) -> "_Session":
        if self._phase in (types.Phase.DESCRIBE, types.Phase.VALIDATE):
            raise Err(_host.sql.Error_Denied("not in this phase"))
        if name not in self._connections:
            raise Err(_host.sql.Error_Denied(f"connection {name} is not granted"))
        if name in self._refused:
            raise Err(_host.sql.Error_Unavailable(self._refused[name]))
        session = _Session(self, len(self._sessions) + 1, self._connections[name])
        self._sessions.append(session)
        self.order.append(f"open {session.number} {name}")
        return session

    def _answer(self, session: "_Session", statement: str, timeout) -> _Answer:
        if not session.alive:
            raise Err(_host.sql.Error_ConnectionLost("the session is gone"))
        text = _folded(statement)
        self.order.append(f"{session.number} {text}")
        left = self._scripts.get(text, Script()).left
        if not left:
            raise Err(_host.sql.Error_Denied(f"statement `{text}` is not granted"))
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer.never:
            self.clock += self._left() if timeout is None else min(timeout / 1e9, self._left())
            self.kill(session.number)
            raise Err(_host.sql.Error_Timeout())
        if answer.kills:
            self.kill(session.number)
        if answer.error is not None:
            raise Err(answer.error)
        return answer

    def _run(self, command, args, stdin, _timeout):
        self.order.append(" ".join(["run", command, *args]))
        if command not in self._programs:
            raise Err(_host.process.Error_Denied(f"program {command} is not granted"))
        return self._programs[command](args, stdin)

    def _get(self, key):
        return self.state.get(_checked(key))

    def _set(self, key, value):
        others = sum(len(k.encode()) + len(v) for k, v in self.state.items() if k != key)
        if others + len(_checked(key).encode()) + len(value) > self.state_bytes:
            raise Err(_host.kv.Error_TooLarge())
        self.state[key] = bytes(value)

    def _delete(self, key):
        self.state.pop(_checked(key), None)


class _Session:
    """A session at the fake server: what the component's ``connection`` is."""

    def __init__(self, host, number, server):
        self._host, self.number, self._server = host, number, server
        self.open = self.alive = True

    def info(self):
        return _host.sql.ServerInfo(*self._server)

    def session_id(self):
        return str(100 + self.number)

    def is_alive(self):
        return self.alive

    def query(self, statement, _params, timeout):
        answer = self._host._answer(self, statement, timeout)
        columns = [_host.sql.Column(name, "VAR_STRING") for name in answer.columns]
        return _host.sql.RowSet(columns, [[_value(it) for it in line] for line in answer.lines], False)

    def execute(self, statement, _params, timeout):
        return self._host._answer(self, statement, timeout).affected

    def __exit__(self, *_):
        if self.open:
            self._host.order.append(f"close {self.number}")
        self.open = False


def _value(it):
    from .sql import _to_value

    return _to_value(it)


def _folded(text: str) -> str:
    return " ".join(text.split())


def _checked(key: str) -> str:
    if not 1 <= len(key.encode()) <= _MOST_KEY_BYTES:
        raise Err(_host.kv.Error_Other(f"a key has 1 to {_MOST_KEY_BYTES} bytes"))
    return key
