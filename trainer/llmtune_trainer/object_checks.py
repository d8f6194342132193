"""Whether a file is the object that S3 says it is, by whatever S3 tells of its content."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from pathlib import Path
from typing import Any

# The ETag of what was stored in one part, without encryption by a key of its own.
MD5 = re.compile(r"[0-9a-f]{32}")
BLOCK = 2**20
CHECKSUMS = {"ChecksumSHA256": "sha256", "ChecksumSHA1": "sha1", "ChecksumCRC32": "crc32"}


def problem_of_file(client: Any, bucket: str, key: str, etag: str, size: int, file: Path) -> str | None:
    """Say in what the file differs from its object."""
    if not file.is_file():
        return "is not there"
    if file.stat().st_size != size:
        return f"has {file.stat().st_size} of {size} bytes"
    if MD5.fullmatch(etag) and _digest(file, "md5").hex() == etag:
        return None
    head = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    # Of what came in parts most stores keep a checksum of the parts' checksums.
    if MD5.fullmatch(etag) or head.get("ChecksumType") == "FULL_OBJECT":
        for name in CHECKSUMS.keys() & head.keys():
            right = base64.b64encode(_digest(file, CHECKSUMS[name])).decode() == head[name]
            return None if right else f"has another {CHECKSUMS[name]} than S3 gives"
    if MD5.fullmatch(etag) and not _has_own_key(head):
        return "has another MD5 than S3 gives (ETag)"
    return None


def _has_own_key(head: dict[str, Any]) -> bool:
    """Tell whether it is encrypted such that its ETag is no MD5."""
    return "SSECustomerAlgorithm" in head or str(head.get("ServerSideEncryption", "")).startswith("aws:kms")


def _digest(file: Path, algorithm: str) -> bytes:
    with file.open("rb") as content:
        if algorithm != "crc32":
            return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).digest()
        value = 0
        while block := content.read(BLOCK):
            value = zlib.crc32(block, value)
        return value.to_bytes(4, "big")
