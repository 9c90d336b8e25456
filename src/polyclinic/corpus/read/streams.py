"""Bytes of a file, plain or compressed, with a bound on everything that a file can make large.

What a file is called must be what it is: gzip named `.jsonl` is refused, and so are archives, which
are never unpacked. Compressed data may grow a hundredfold, which real text does not; past that it
is taken for a bomb.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from polyclinic.errors import DataError

MAX_LINE_BYTES = 16_000_000
MAX_EXPANDED_BYTES = 64_000_000_000
MAX_RATIO = 100  # beyond the first MAX_LINE_BYTES

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".tbz2", ".txz")
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"PAR1": "Parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
TAR_MAGIC, TAR_AT = b"ustar", 257
BOM = b"\xef\xbb\xbf"


class Kind(NamedTuple):
    """The format of a file by its name (`.jsonl`, ...), and how it is compressed, if at all."""

    format: str
    compression: str | None


def kind(path: Path, file: str) -> Kind:
    """Read a file's kind from its name; raises DataError for archives."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last = suffixes[-1] if suffixes else ""
    if last in ARCHIVES or ".tar" in suffixes[-2:]:
        raise DataError(file, "is an archive, and archives are never unpacked", "unpack it and name its files")
    if last in COMPRESSIONS:
        return Kind(suffixes[-2] if len(suffixes) > 1 else "", COMPRESSIONS[last])
    return Kind(last, None)


def open_bytes(path: Path, file: str, compression: str | None) -> io.BufferedReader:
    """Open a file for reading bytes as they are once expanded; raises DataError if it is another kind or empty."""
    with path.open("rb") as raw:
        head = raw.read(TAR_AT + len(TAR_MAGIC))
    if not head:
        raise DataError(file, "the file is empty", "remove it or correct the path")
    found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
    if head[TAR_AT:] == TAR_MAGIC:
        found = "a tar archive"
    if found != compression:
        given = f"is {found}" if found else f"is not {compression}"
        raise DataError(file, f"{given}, which its name does not say", "unpack, convert or rename it")
    if compression is None:
        return path.open("rb")
    inner: Any = gzip.GzipFile(path) if compression == "gzip" else pa.input_stream(str(path), compression="zstd")
    return io.BufferedReader(_Expanded(inner, file, path.stat().st_size), 1 << 20)


class _Expanded(io.RawIOBase):
    """Expanded bytes, as long as they are not suspiciously many."""

    def __init__(self, inner: Any, file: str, size: int) -> None:
        self._inner, self._file, self._left = inner, file, allowance(size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as err:
            raise DataError(self._file, "compressed data is cut short or damaged", "fetch or write it again") from err
        self._left -= len(data)
        if self._left < 0:
            what = f"expands to more than {MAX_RATIO} times its size, or {MAX_EXPANDED_BYTES} bytes"
            raise DataError(self._file, what, "expand it and look; plain files have no such limit")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()


def allowance(size: int) -> int:
    """Return how many bytes a compressed file of a size may expand to."""
    return min(MAX_EXPANDED_BYTES, max(MAX_LINE_BYTES, MAX_RATIO * size))


def lines(stream: io.BufferedReader, first: int = 1, end: int | None = None) -> Iterator[tuple[int, bytes | None]]:
    """Yield numbered lines with their ends, up to the byte `end`; None for one of more than MAX_LINE_BYTES."""
    number, at = first, stream.tell() if end is not None else 0
    while end is None or at < end:
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        at += len(line)
        if len(line) <= MAX_LINE_BYTES:
            yield number, line.removeprefix(BOM) if number == 1 else line
        else:
            while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE_BYTES)):
                at += len(line)
            yield number, None
        number += 1
