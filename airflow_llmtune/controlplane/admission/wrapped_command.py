"""The primary container's command as Katib's pod webhook rewrites it. Pure."""

from __future__ import annotations

import posixpath
from typing import Any


def wrap_command(container: dict[str, Any], folder: str, *, output: str | None, can_stop: bool) -> None:
    """Run the container's words by a shell that says in ``folder`` when they have succeeded.

    The words are joined by spaces without quoting, as upstream: the shell reads them again. Four dollars are two
    after Kubernetes' own expansion, the shell's process number; inside ``$( )`` Kubernetes expands nothing, for no
    variable has such a name, so two are enough there.
    """
    words = [*container["command"], *(container.get("args") or ())]
    shell = ["sh", "-c"]
    if len(words) > 1 and words[0] in {"sh", "bash"} and words[1] == "-c":
        shell, words = words[:2], words[2:]
    if output is not None:
        words.append(f"1>{output} 2>&1")
    folder = clean_path(folder)
    mark = f"{folder}/$$$$.pid"
    if can_stop:
        stopped = f"test -f {mark} && [ $(head -n 1 {folder}/$$.pid) = early-stopped ]"
        ended_well = "echo Training Container was Early Stopped"
        words.append(f"|| if {stopped}; then {ended_well}; else echo Training Container was Failed; exit 1; fi")
    words.append(f"&& echo completed > {mark}")
    container["command"], container["args"] = shell, [" ".join(words)]


def clean_path(path: str) -> str:
    """Without ``//``, ``.``, ``..`` and a slash at the end, as Go's ``filepath`` makes it."""
    return posixpath.normpath("/" + path.lstrip("/"))
