"""Tell the encoding of a text file: UTF-8, or UTF-16 with or without a byte-order mark."""

from pathlib import Path


def encoding_of(path: Path) -> str:
    """Return the encoding a byte-order mark names; without one UTF-8, or UTF-16 where every other byte is 0."""
    with path.open("rb") as file:
        return _encoding(file.read(64))


def decoded(content: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16; bytes that are no text become lone surrogates."""
    encoding = _encoding(content[:64])
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode("utf-8-sig", "surrogateescape")


def errors_of(encoding: str) -> str:
    """Return the error handler that decodes bytes that are invalid in an encoding."""
    return "surrogateescape" if encoding.startswith("utf-8") else "backslashreplace"


def _encoding(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    even, odd = start[::2], start[1::2]
    if len(start) >= 4 and even.count(0) + odd.count(0) > len(start) // 4:
        if not any(even):
            return "utf-16-be"
        if not any(odd):
            return "utf-16-le"
    return "utf-8-sig"
