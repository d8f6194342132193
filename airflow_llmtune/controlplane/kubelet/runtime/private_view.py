"""A container's own view of some paths: a mount namespace in which they are others than the host's. Linux only.

Root makes one directly, others inside a user namespace in which they keep their own number, so that a program sees
the same user either way. Nothing of the host changes: neither its files nor its mounts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

HOSTS = "/etc/hosts"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SLAVE = 0x80000


def is_possible(folder: Path) -> bool:
    """Try it once, in a process of its own; ``folder`` is for the files of the trial."""
    account, hosts = folder / "account", folder / "hosts"
    account.mkdir()
    (account / "namespace").write_text("here")
    hosts.write_text("here")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            enter([(str(account), SERVICE_ACCOUNT), (str(hosts), HOSTS)])
            seen = [Path(HOSTS).read_text(), Path(SERVICE_ACCOUNT, "namespace").read_text()]
            code = 0 if seen == ["here", "here"] else 1
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    shutil.rmtree(account)
    hosts.unlink()
    return status == 0


def enter(binds: Sequence[Sequence[str]]) -> None:
    """Take this process and all that it starts into a view in which each target is its source."""
    user, group = os.getuid(), os.getgid()
    try:
        _unshare(_CLONE_NEWNS)
    except PermissionError:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # What the host mounts later is seen here too, but not the other way round.
    _mount("none", "/", "", _MS_REC | _MS_SLAVE)
    for source, target in binds:
        _bind(source, target)


def _bind(source: str, target: str) -> None:
    # Resolved, as the path may lead over links: /var/run is one to /run.
    place = Path(target).resolve()
    if not place.exists():
        _shadow(next(folder for folder in place.parents if folder.exists()))
        _make_like(Path(source), place)
    _mount(source, str(place), "", _MS_BIND)


def _shadow(folder: Path) -> None:
    """Put a folder in memory in this one's place, with all that is there, to which something can be added."""
    below = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        _mount("tmpfs", str(folder), "tmpfs", 0, "mode=755")
        for entry in Path(f"/proc/self/fd/{below}").iterdir():
            # One that cannot be shown, or has just gone, is not worth the container's start.
            with contextlib.suppress(OSError):
                _show(entry, folder / entry.name)
    finally:
        os.close(below)


def _show(entry: Path, place: Path) -> None:
    if entry.is_symlink():
        place.symlink_to(entry.readlink())
        return
    _make_like(entry, place)
    _mount(str(entry), str(place), "", _MS_BIND | _MS_REC)


def _make_like(source: Path, place: Path) -> None:
    if source.is_dir():
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def _unshare(flags: int) -> None:
    _check(_library().unshare(flags), "unshare")


def _mount(source: str, target: str, type_: str, flags: int, data: str = "") -> None:
    words = [word.encode() or None for word in (source, target, type_)]
    _check(_library().mount(*words, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
