"""Programs that the operator granted, with these arguments. No shell."""

from typing import Optional, Sequence

from ._host import nanoseconds
from ._host import process as _process
from .errors import calling

Output = _process.Output


def run(
    command: str,
    args: Sequence[str] = (),
    stdin: Optional[bytes] = None,
    timeout: Optional[float] = None,
) -> Output:
    """Runs a program to its end; an exit code other than 0 is no error here.

    ``timeout`` in seconds is clamped to what is left of the phase, which is also what counts without one. The
    output has ``exit_code`` or ``signal``, ``stdout``, ``stderr``, and ``truncated`` if one of them was cut at the
    host's limit. Raises a :class:`ProcessError`.
    """
    with calling():
        return _process.run(command, list(args), stdin, nanoseconds(timeout))
