"""Zip archives (.npz, .keras, .pt) whose directory is checked against the file before anything is read."""

import zipfile
from pathlib import Path

from fanin.errors import CheckpointError

LOCAL = 30  # bytes before the name in a member's own header
DEFLATED_AT_MOST = 1032  # times what is stored; the format's own bound


def is_zip(path: str | Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def members(path: str | Path) -> dict[str, zipfile.ZipInfo]:
    """The members of an archive by name.

    Raises
    ------
    CheckpointError
        When it is damaged, names a member twice, or members overlap, are encrypted, or say they are larger
        than what is stored can become.
    """
    size = Path(path).stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path}: no zip archive that can be read ({error}); is it truncated?"
        ) from error
    found = {member.filename: member for member in listed}
    if len(found) != len(listed):
        raise CheckpointError(f"{path}: a name occurs twice in the archive")
    at = 0
    for member in sorted(listed, key=lambda member: member.header_offset):
        where = f"{path}: member {member.filename!r}"
        if member.flag_bits & 1:
            raise CheckpointError(f"{where} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"{where} is compressed by method {member.compress_type}, not deflate")
        if member.header_offset < at:
            raise CheckpointError(f"{where} overlaps the one before")
        at = member.header_offset + LOCAL + len(member.filename.encode()) + member.compress_size
        if at > size:
            raise CheckpointError(f"{where} ends at byte {at} of a file of {size}")
        stored = member.compress_type == zipfile.ZIP_STORED
        most = member.compress_size * (1 if stored else DEFLATED_AT_MOST)
        if member.file_size > most or (stored and member.file_size != most):
            raise CheckpointError(
                f"{where} says that its {member.compress_size} bytes become {member.file_size}"
            )
    return found


def start(path: str | Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin that is stored as it is."""
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        front = file.read(LOCAL)
    if len(front) < LOCAL or front[:4] != b"PK\3\4":
        raise CheckpointError(f"{path}: member {member.filename!r} is not where the archive says")
    lengths = int.from_bytes(front[26:28], "little") + int.from_bytes(front[28:30], "little")
    begins = member.header_offset + LOCAL + lengths
    if begins + member.compress_size > Path(path).stat().st_size:
        raise CheckpointError(f"{path}: member {member.filename!r} is truncated")
    return begins
