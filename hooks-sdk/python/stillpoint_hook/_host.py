"""The host's functions: those of the component, or, outside one, generated stand-ins for a FakeHost to fill."""

try:
    import wit_world  # inside a component, and while one is made
except ModuleNotFoundError:
    import pathlib
    import sys

    sys.path.append(str(pathlib.Path(__file__).parent / "_bindings"))

from componentize_py_types import Err  # noqa: E402
from wit_world.exports import lifecycle  # noqa: E402
from wit_world.imports import kv, log, process, run, sql, types  # noqa: E402

__all__ = ["Err", "kv", "lifecycle", "log", "process", "run", "sql", "types"]


def nanoseconds(seconds):
    """The contract's duration; nothing stays nothing."""
    return None if seconds is None else max(0, round(seconds * 1e9))
