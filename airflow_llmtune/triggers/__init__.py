"""Waiting without a worker: a trigger watches one object and fires one small event. It never creates anything."""
