"""Controllers: each makes the world look like one kind's objects say, and reports in their status.

A controller reads the full state, lets pure functions decide (the ``*_plan``, ``*_status`` modules: state
in, next status and actions out), then writes. It never acts on the type of an event, keeps no state of its
own between two calls, and starts no process: that is the kubelet's part.
"""
