"""What must not be read by everybody: names and texts that look like secrets, and how an error tells a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["carries_secret", "is_secret", "looks_secret", "redacted", "shown"]

_MAX_TEXT_LENGTH = 120
_MAX_KEYS = 10
_LARGEST = 10**_MAX_TEXT_LENGTH

_NAME_WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
# Both are matched with a name in capitals, without digits, its words joined by `_`.
_SENSITIVE_NAME = (
    r"(?:^|_)(?:"
    r"[A-Z]*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?(?:_|$)"
    r"|[A-Z]*(?:API|ACCESS|PRIVATE|SECRET)_?KEYS?(?:_|$)"
    r"|(?:KEYS?|PASS|AUTH|OAUTH|CREDS?|JWT|DSN|(?<=_)(?:PWD|PAT))$"
    r"|(?:DATABASE|DB|CONNECTION|WEBHOOK)_UR[IL]$"
    r"|CONN(?:ECTION)?_STR(?:ING)?$"
    r")"
)
_HARMLESS_NAME = (
    r"_(?:PATH|FILE|FILENAME|DIR|NAME|ENDPOINT|LENGTH|LIMIT|COUNT|SIZE|TYPE|TTL|TIMEOUT)$"  # about a secret, not one
    r"|(?:^|_)TOKEN_UR[IL]$"
    r"|(?:^|_)(?:ENABLE|DISABLE|SKIP)_"
    r"|^GOOGLE_APPLICATION_CREDENTIALS$"  # a path
    # Tokens of a language model.
    r"|(?:^|_)(?:MAX|MIN|NUM|N|TOTAL)_(?:[A-Z]+_)*TOKENS?$"
    r"|(?:^|_)(?:NEW|PROMPT|INPUT|OUTPUT|CONTEXT|INVOCATION)_TOKENS$"
    r"|(?:^|_)TOKENS?_INDICES$"
    r"|(?:^|_)(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK|STOP|SPECIAL)_TOKENS?(?:_IDS?)?$"
    r"|(?:^|_)TOKENS?_PER_"
    r"|(?:^|_)(?:PUBLIC|PRIMARY|FOREIGN|SORT|PARTITION|OBJECT|CACHE)_KEYS?$"
)
# `user:password@` of a URL. A password may contain what a URL should have encoded; `host:port/` is none.
_USER_INFO = r"(?<=://)(?:[^/?#\s]*|[^/?#\s:@]*:(?!\d+[/?#])\S*)@"


def looks_secret(name: str) -> bool:
    words = "_".join(re.findall(_NAME_WORD, name)).upper()
    return re.search(_SENSITIVE_NAME, words) is not None and re.search(_HARMLESS_NAME, words) is None


def carries_secret(text: str) -> bool:
    return re.search(_USER_INFO, text) is not None or "PRIVATE KEY-----" in text


def is_secret(name: str, value: Any) -> bool:
    texts = value if isinstance(value, list | tuple) else [value]
    return looks_secret(name) or any(isinstance(text, str) and carries_secret(text) for text in texts)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text of somebody else without ``secrets``, and without what stands before the host of an address."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may begin as another does
        text = text.replace(secret, "***")
    return re.sub(_USER_INFO, "***@", text)


def shown(argument: str, value: Any) -> str:
    """The value of an argument as an error may print it: an error ends in logs that many can read."""
    if isinstance(value, Mapping):
        keys = [f"{shown('', key)}: …" for key in list(value)[:_MAX_KEYS]]
        return "{" + ", ".join([*keys, "…"] if len(value) > _MAX_KEYS else keys) + "}"
    if isinstance(value, list | tuple):
        return f"[{len(value)} item{'s' if len(value) != 1 else ''}]"
    if value is None or isinstance(value, bool):
        return repr(value)
    if not isinstance(value, str | int | float):
        return f"<{type(value).__name__}>"
    if any(word == "env" or looks_secret(word) for word in re.findall(r"\w+", argument)):
        return "***"
    if isinstance(value, str):
        return _shown_text(value)
    if isinstance(value, int) and abs(value) >= _LARGEST:  # Python writes no more than 4300 digits
        return f"<a number of {value.bit_length()} bits>"
    return repr(value)


def _shown_text(text: str) -> str:
    text = re.sub(_USER_INFO, "***@", text)
    for word in re.finditer(r"\w+", text):
        if looks_secret(word.group()):  # what follows may be its value
            text = text[: word.end()] + "***"
            break
    return repr(text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…")
