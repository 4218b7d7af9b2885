"""Lines for the operator. Never blocks and never fails; the host counts what it had to drop. No secrets."""

from ._host import log as _log


def _write(level, message, fields):
    _log.write(level, str(message), [(name, str(value)) for name, value in fields.items()])


def trace(message: object, **fields: object) -> None:
    """For whoever debugs the hook."""
    _write(_log.Level.TRACE, message, fields)


def debug(message: object, **fields: object) -> None:
    """For whoever wonders what the hook did."""
    _write(_log.Level.DEBUG, message, fields)


def info(message: object, **fields: object) -> None:
    """What an operator wants to read after a run."""
    _write(_log.Level.INFO, message, fields)


def warn(message: object, **fields: object) -> None:
    """What an operator should look at."""
    _write(_log.Level.WARN, message, fields)


def error(message: object, **fields: object) -> None:
    """What went wrong, beside the error that the phase raises."""
    _write(_log.Level.ERROR, message, fields)
