"""Writes the tables of ``docs/reference/trainer.md``: every flag of the trainer, from the schema that checks them."""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

from docs.markdown import table
from llmtune_trainer.flags import Flag, load, text_of
from llmtune_trainer.rules import RULES, Rule
from llmtune_trainer.settings import HOUSEKEEPING, REQUIRED, TASKS, evaluation_settings

PAGE = Path(__file__).parent / "reference" / "trainer.md"
RULES_TITLE = "### Not together, or not alone"
BEGIN, END = "<!-- flags: `make docs` writes what is below -->", "<!-- end of flags -->"

_HEAD = ["flag", "takes", "default", ""]
_ABOUT_OURS = "Of the trainer itself. `evaluate` takes those in **bold**."
_ABOUT_REFUSED = "Fields of these classes that are no flags, and what does instead what they are for."
_ABOUT_RULES = "Each is told in the first words of a run, and by the operators before anything is created."


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
    parts += [f"### Not to be set\n\n{_ABOUT_REFUSED}", table(["fields", "why", "instead"], _refused_rows())]
    parts += [f"{RULES_TITLE}\n\n{_ABOUT_RULES}", table(["flag", "mistake", "fix"], map(_rule, RULES))]
    return "\n\n".join(parts)


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


def _rule(rule: Rule) -> list[str]:
    texts = (re.sub(r"\{(\w+)\}", r"`\1`", text) for text in (rule.why, rule.fix))
    return [", ".join(f"`{name}`{_when(rule, name)}" for name in rule.flags), *texts]


def _when(rule: Rule, name: str) -> str:
    return f" {' or '.join(map(text_of, rule.beside[name]))}" if name in rule.beside else ""


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
