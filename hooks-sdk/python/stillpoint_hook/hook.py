"""What a hook is, and how a class becomes what the component exports."""

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Dict, List, Optional, Sequence, Type, Union

from ._host import Err, lifecycle, types
from .errors import InvalidSettings, to_hook_error
from .sql import Engine

Meta = Union[str, int, bool, bytes]
#: The key under which ``pre_freeze`` says, in nanoseconds, for how long the application had been held when it
#: returned: the host then does not count waiting for a lock as holding it.
HELD_BEFORE_FREEZE = "held-before-freeze-ns"


class Consistency(Enum):
    """What a hook reached: see the contract."""

    CRASH = types.Consistency.CRASH
    APPLICATION = types.Consistency.APPLICATION
    NONE = types.Consistency.NONE


class Outcome(Enum):
    """The snapshot's fate, as ``post_thaw`` is told it."""

    CAPTURED = lifecycle.Outcome.CAPTURED
    FAILED = lifecycle.Outcome.FAILED
    ABORTED = lifecycle.Outcome.ABORTED


@dataclass
class Description:
    """What a hook is and what it asks for. ``settings_schema`` is a JSON Schema (2020-12), of at most 64 KiB;
    without one the hook has no settings. ``freeze_budget_ms`` is what it would like per phase."""

    name: str
    version: str
    summary: str
    needs: List[object] = field(default_factory=list)
    settings_schema: Optional[dict] = None
    freeze_budget_ms: int = 10_000


@dataclass
class Plan:
    """Paths whose file systems must be in the snapshot, and one line for people."""

    summary: str
    paths: Sequence[str] = ()


@dataclass
class Frozen:
    """What was reached, and what to save with the snapshot: keys in kebab-case, no secrets."""

    consistency: Consistency
    metadata: Dict[str, Meta] = field(default_factory=dict)


def needs_sql(connection: str, engines: Sequence[Engine], statements: Sequence[str], reason: str, required=True):
    """Asks for these statements, as whole texts, on a connection of the operator's."""
    need = lifecycle.SqlNeed(connection, list(engines), list(statements), reason, required)
    return lifecycle.CapabilityNeed_Sql(need)


def needs_program(command: str, arguments, reason: str, stdin_scripts: Sequence[str] = (), required=True):
    """Asks for a program with one of these lists of arguments; ``stdin_scripts`` are what it may read."""
    lists = [list(one) for one in arguments]
    need = lifecycle.ProgramNeed(command, lists, list(stdin_scripts), reason, required)
    return lifecycle.CapabilityNeed_Program(need)


def needs_kv(bytes: int, reason: str, required=True):
    """Asks for so many bytes of durable state."""
    return lifecycle.CapabilityNeed_Kv(lifecycle.KvNeed(bytes, reason, required))


class Hook:
    """One application's hook. One object lives through one run, from ``prepare`` to ``finish``; the sessions in it
    are what keeps the application quiesced. Each function has a deadline: see ``run.remaining``. Settings come as
    what their JSON says, and fit the schema."""

    @staticmethod
    def describe() -> Description:
        """What the hook is. Always the same; no function of the host may be called."""
        raise NotImplementedError

    def validate(self, settings: dict) -> None:
        """What a schema cannot say. Contacts nothing. Raises :class:`InvalidSettings`."""

    def prepare(self, settings: dict) -> Plan:
        """Everything that can be found out before anything is held; takes no lock."""
        return Plan("nothing to prepare")

    def pre_freeze(self) -> Frozen:
        """Quiesces, and leaves it so. When it raises, everything that it took is given back."""
        raise NotImplementedError

    def confirm(self) -> None:
        """Proves, before anything is released, that the application was quiesced all the time, or raises."""
        raise NotImplementedError

    def post_thaw(self, outcome: Outcome) -> Optional[Dict[str, Meta]]:
        """Releases. Called whenever ``pre_freeze`` was called; a second time there is nothing to do."""
        raise NotImplementedError

    def finish(self) -> None:
        """Cleans up. Always called, always last, maybe on a fresh object."""


def component(hook_class: Type[Hook]) -> type:
    """``Lifecycle = component(MyHook)`` in the app's module makes a class the component's export."""

    class Lifecycle:
        # One component instance serves one run: so does one hook, whatever object the call is made on.
        _hook: Optional[Hook] = None

        @classmethod
        def _self(cls) -> Hook:
            if cls._hook is None:
                cls._hook = hook_class()
            return cls._hook

        def describe(self):
            it = hook_class.describe()
            schema = it.settings_schema or {"type": "object", "additionalProperties": False}
            return lifecycle.Description(
                it.name, it.version, it.summary, json.dumps(schema), list(it.needs), it.freeze_budget_ms
            )

        def validate(self, settings):
            _answer(lambda: self._self().validate(_parsed(settings)))

        def prepare(self, settings):
            plan = _answer(lambda: self._self().prepare(_parsed(settings)))
            return lifecycle.Plan(list(dict.fromkeys(plan.paths)), plan.summary)

        def pre_freeze(self):
            frozen = _answer(lambda: _frozen(self._self().pre_freeze()))
            return frozen

        def confirm(self):
            _answer(lambda: self._self().confirm())

        def post_thaw(self, outcome):
            return _answer(lambda: _entries(self._self().post_thaw(Outcome(outcome)) or {}))

        def finish(self):
            _answer(lambda: self._self().finish())

    return Lifecycle


def _answer(phase):
    """What the phase gives; what it raises goes out as one of the contract's errors."""
    try:
        return phase()
    except Exception as error:
        answer = to_hook_error(error).to_wit()
    raise Err(answer)


def _parsed(settings: str):
    try:
        return json.loads(settings) if settings else {}
    except ValueError as error:
        raise InvalidSettings("", f"not JSON: {error}") from error


def _frozen(frozen: Frozen):
    return lifecycle.Frozen(frozen.consistency.value, _entries(frozen.metadata))


def _entries(metadata: Dict[str, Meta]):
    return [types.MetadataEntry(key, _meta_value(key, value)) for key, value in metadata.items()]


def _meta_value(key: str, value: Meta):
    # bool first: it is an int, too.
    for kind, case in (
        (bool, types.MetaValue_Boolean),
        (int, types.MetaValue_Integer),
        (str, types.MetaValue_Text),
        (bytes, types.MetaValue_Bytes),
    ):
        if isinstance(value, kind):
            return case(value)
    raise TypeError(f"{key} is a str, int, bool or bytes; not {type(value).__name__}")
