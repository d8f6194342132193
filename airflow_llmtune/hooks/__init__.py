"""The only layer that speaks HTTP to the API server. It moves plain dicts and decides nothing about Katib."""
