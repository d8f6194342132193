"""What a state directory can be refused for."""

from __future__ import annotations


class StateError(Exception):
    """The state directory cannot be used; the message says what to do."""
