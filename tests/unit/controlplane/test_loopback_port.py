from __future__ import annotations

import socket

from airflow_llmtune.controlplane.controllers.loopback_port import free_port


def test_no_two_jobs_that_wait_for_the_node_are_told_the_same_port() -> None:
    told = [free_port() for _ in range(1000)]
    assert len(set(told)) == len(told)


def test_a_port_that_is_listened_on_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        a_whole_round = [free_port() for _ in range(12_000)]
        assert taken.getsockname()[1] not in a_whole_round
