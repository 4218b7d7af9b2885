"""What this run is, and the clock that it runs against. Times are seconds."""

from ._host import nanoseconds
from ._host import run as _run
from ._host import types

Phase = types.Phase
Info = _run.Info


def info() -> Info:
    """``run_id`` is unique on this machine; ``hook_name`` is the operator's name for this hook; in a
    ``dry_run`` the hook looks, and neither changes nor locks anything."""
    return _run.get_info()


def current_phase() -> Phase:
    """The phase that the host called."""
    return _run.current_phase()


def remaining() -> float:
    """Seconds that are left of this phase before the host interrupts the hook; 0 when it has passed."""
    return _run.remaining() / 1e9


def remaining_but(reserve: float) -> float:
    """What is left after ``reserve`` seconds are kept for undoing; never below 0."""
    return max(0.0, remaining() - reserve)


def cancelled() -> bool:
    """True once somebody asked to stop: unwind now."""
    return _run.cancelled()


def sleep(seconds: float) -> None:
    """Waits. Ends early when the run is cancelled, and at the end of the phase."""
    _run.sleep(nanoseconds(seconds))
