"""Keeps the warnings of numerical libraries to themselves."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_one_at_a_time = threading.Lock()


@contextmanager
def unheard() -> Iterator[None]:
    """They tell of experimental options and of fits that did not converge, which nobody here can act on.

    One thread at a time: the filters belong to the whole process, and two that restore them may undo each other.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
