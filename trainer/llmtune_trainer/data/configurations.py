"""The configurations that a data set on the Hub states at the head of its README.md, each with splits of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmtune_trainer.errors import BadInputError

FLAG = "--dataset_config"


def configured_files(folder: Path, wanted: str | None, name: str) -> list[tuple[str | None, Path]] | None:
    """Return files with their splits (None: their names tell it), or None where nothing is stated."""
    stated = _configurations(folder, name)
    if not stated and wanted is None:
        return None
    chosen = stated[_choose(stated, wanted, name)]
    files = chosen.get("data_files") or f"{chosen.get('data_dir') or '.'}/**/*"
    return [
        (split, file) for split, pattern in _patterns(files) for file in sorted(folder.glob(pattern)) if file.is_file()
    ]


def _configurations(folder: Path, name: str) -> dict[str, Mapping[str, Any]]:
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    # A quarter of a second that other data does not pay.
    import yaml
    from huggingface_hub import metadata_load

    try:
        stated = (metadata_load(readme) or {}).get("configs") or []
        return {one["config_name"]: one for one in stated}
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"The head of the README.md of {name} cannot be read: {reason}. Fix: correct it, or remove it."
        ) from error


def _choose(stated: Mapping[str, Mapping[str, Any]], wanted: str | None, data: str) -> str:
    names = ", ".join(stated) or "none"
    if wanted is not None:
        if wanted not in stated:
            raise BadInputError(
                f"`{FLAG}`={wanted!r} is no configuration that the README.md of {data} names, which are: {names}. "
                "Fix: name one of these, or leave it out."
            )
        return wanted
    preferred = [name for name, one in stated.items() if one.get("default") or name == "default" or len(stated) == 1]
    if not preferred:
        raise BadInputError(
            f"{data} has several configurations: {names}. Fix: choose one, such as {FLAG} {next(iter(stated))}."
        )
    return preferred[0]


def _patterns(files: Any) -> Iterator[tuple[str | None, str]]:
    for one in [files] if isinstance(files, str | Mapping) else files:
        split, paths = (one.get("split"), one["path"]) if isinstance(one, Mapping) else (None, one)
        for path in [paths] if isinstance(paths, str) else paths:
            if ".." not in Path(path).parts:
                yield split, path
