"""Measures the control plane from outside: its own process on one side, clients on the other.

Each benchmark is a program, ``python -m benchmarks.NAME``; the last line it prints is ``figures: {…}`` in JSON.
"""
