"""What a view shows when the store can't be read: one sentence, and the next run tries again."""

import functools
from collections.abc import Callable
from typing import ParamSpec

import structlog

from app.errors import StoreError
from app.ui.components import parts

log = structlog.get_logger()
P = ParamSpec("P")
_blind: set[str] = set()


def guarded(show: Callable[P, None]) -> Callable[P, None]:
    """Tells a StoreError on the page instead of Streamlit's own box; logged once, and once when it is over."""

    @functools.wraps(show)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        name = f"{show.__module__}.{show.__name__}"
        try:
            show(*args, **kwargs)
        except StoreError as error:
            if name not in _blind:
                _blind.add(name)
                log.error("page_blind", view=name, error=str(error))
            parts.notes(
                f"blind-{name}", [parts.note(f"{error} This view tries again by itself.", "act")]
            )
        else:
            if name in _blind:
                _blind.discard(name)
                log.info("page_sees_again", view=name)

    return run
