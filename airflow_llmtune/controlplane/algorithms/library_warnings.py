"""Keeps numerical libraries to themselves: their warnings, and their threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_one_at_a_time = threading.Lock()


@contextmanager
def unheard() -> Iterator[None]:
    """They tell of experimental options and of fits that did not converge, which nobody here can act on.

    The matrices of a search are small: several threads for one of them spend far more time waiting for each other, and
    take the processors from the trials. One search at a time: filters and limits belong to the whole process, and two
    that restore them may undo each other.
    """
    with _one_at_a_time, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
