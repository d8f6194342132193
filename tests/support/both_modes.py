"""Marks the test of a deviation from Katib: it runs with ``strict`` False and True, and says which deviation it is."""

from __future__ import annotations

import pytest


def both_modes(deviation: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("strict", [False, True], ids=[f"{deviation}-default", f"{deviation}-strict"])
