"""What Orbax logs without need: ordinary steps, and exceptions that it also raises."""

import contextlib
import logging
from collections.abc import Iterator

_LOGGER = logging.getLogger("absl")


def hide_raised_exceptions() -> None:
    """Drops what Orbax logs with a traceback and raises in the main thread.

    Orbax logs it up to five times, and asyncio once for each array that could not be written.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_raised)  # once, however often this is called


def _is_not_raised(record: logging.LogRecord) -> bool:
    of_array = record.exc_info and "OCDBT database" in str(record.exc_info[1])
    return not (of_array or (record.exc_info and "orbax" in record.pathname))


@contextlib.contextmanager
def without_metric_warning() -> Iterator[None]:
    """Drops the warning about a step without metrics: most steps are not evaluated."""

    def is_shown(record: logging.LogRecord) -> bool:
        return "did not provide metrics" not in record.getMessage()

    _LOGGER.addFilter(is_shown)
    try:
        yield
    finally:
        _LOGGER.removeFilter(is_shown)
