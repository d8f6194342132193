"""Katib's gRPC services: the DB manager that trainings push their metrics to, and health.

Health is told for the services of Suggestions as well: inside pods their names lead to the same address.

Insecure and without any token, as Katib's; hence on loopback only, and only for Trials that exist. The listening
address is there from the start; gRPC itself is imported and started at the first connection.
"""
