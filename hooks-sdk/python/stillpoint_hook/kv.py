"""Small durable state, private to this hook on this machine.

Keep here what you are about to do, before you do it, if no session undoes it; undo what ``finish`` finds, then
delete it. What is set in ``prepare`` survives a power cut; what is set later survives the host's death, not a
reboot. Keys have 1 to 128 bytes; keys and values together have the bytes that the operator granted.
"""

from typing import List, Optional

from ._host import kv as _kv
from .errors import calling


def get(key: str) -> Optional[bytes]:
    """The value, or ``None``. Raises :class:`KvError`."""
    with calling():
        return _kv.get(key)


def set(key: str, value: bytes) -> None:
    """Replaces what was there; durable when it returns. Raises :class:`TooLarge` or another :class:`KvError`."""
    with calling():
        _kv.set(key, value)


def delete(key: str) -> None:
    """Deleting what is not there is no error. Raises :class:`KvError`."""
    with calling():
        _kv.delete(key)


def keys() -> List[str]:
    """The keys that are there, sorted: by them ``finish`` on a fresh object sees what was begun, also by an older
    version of the hook. Raises :class:`KvError`. Since version 0.1.1 of the contract."""
    with calling():
        return _kv.keys()
