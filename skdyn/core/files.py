"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that its path holds the old content or the new one at every moment.

    The content goes into a temporary file in the same folder, which is flushed to the disk and
    then renamed. A full disk, an interrupt or a killed process leaves the old file as it was.

    Parameters
    ----------
    path : str or path-like
        The file. The target of a symbolic link is replaced, not the link.
    content : bytes
        The new content.

    Raises
    ------
    OSError
        If the file cannot be written; the message contains the path.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(content)  # a device or a pipe cannot be replaced, a folder not written
        return
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        # The mode of a file created by open(), which the umask restricts.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            # The same class, since OSError makes its subclasses from the number.
            raise OSError(
                error.errno, f"{error.strerror}, nothing was written", str(path)
            ) from error
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Flush a renamed entry to the disk, where folders can be opened."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
