"""Writes the tables of ``docs/reference/trainer.md``: every flag of the trainer, from the schema that checks them."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

from docs.markdown import table
from llmtune_trainer.flags import Flag, load, text_of
from llmtune_trainer.settings import HOUSEKEEPING, REQUIRED, TASKS, evaluation_settings

PAGE = Path(__file__).parent / "reference" / "trainer.md"
BEGIN, END = "<!-- flags: `make docs` writes what is below -->", "<!-- end of flags -->"

_HEAD = ["flag", "takes", "default", ""]
_ABOUT_OURS = "Of the trainer itself. `evaluate` takes those in **bold**."
_ABOUT_REFUSED = "Fields of these classes that are no flags, and what does instead what they are for."


def page() -> str:
    """The page's text, with the tables as they have to be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{_tables()}\n\n{END}{after}"


def _tables() -> str:
    parts = []
    for names, flags in groupby(load().flags, key=lambda flag: flag.classes):
        parts += [_title(names), table(_HEAD, map(_row, flags))]
    refused = table(["fields", "why", "instead"], _refused_rows())
    return "\n\n".join([*parts, f"### Not to be set\n\n{_ABOUT_REFUSED}", refused])


def _title(names: tuple[str, ...]) -> str:
    if not names:
        return f"### The trainer's own\n\n{_ABOUT_OURS}"
    # The others inherit from it.
    names = names[:1] if names[0] == "TrainingArguments" else names
    return "### " + " and ".join(f"`{name}`" for name in names)


def _row(flag: Flag) -> list[str]:
    name = f"`{flag.name}`"
    takes = flag.kind.rule().removeprefix("must be ")
    default = "" if flag.name in REQUIRED else f"`{text_of(flag.default)}`" if flag.default is not None else "none"
    tasks = "" if flag.tasks == TASKS else f" ({', '.join(flag.tasks)})"
    return [f"**{name}**" if _is_of_evaluation(flag) else name, takes, default, f"{_escaped(flag.help)}{tasks}"]


def _is_of_evaluation(flag: Flag) -> bool:
    return flag.name in (*evaluation_settings(), *HOUSEKEEPING)


def _escaped(text: str) -> str:
    """Whatever a browser would take for a tag."""
    return re.sub(r"<(?=\w)", "&lt;", text)


def _refused_rows() -> list[list[str]]:
    """One row for all fields that are refused for the same reason."""
    alike: dict[str, list[str]] = {}
    for name, told in load().refused.items():
        alike.setdefault(told, []).append(f"`{name}`")
    rows = []
    for told, names in alike.items():
        why, _, fix = told.partition(". Fix: ")
        instead = "" if fix.startswith("leave") else f"`{fix.removeprefix('use --').rstrip('.')}`"
        rows.append([", ".join(names), why, instead])
    return rows


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
