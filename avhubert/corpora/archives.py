"""Archives that a user has not unpacked yet: they are named with the command that unpacks them."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

_ZIP = ".zip"
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its name."""
    return path.name.lower().endswith((_ZIP, *_TAR))


def advice(path: Path) -> str | None:
    """What to do with an archive: how to unpack it, or that it is damaged; None if it is unpacked beside itself."""
    try:
        member = _first_file(path)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        return f"a damaged or incomplete archive ({' '.join(str(error).split())}); download it again and unpack it"
    if member is None:
        return None
    if any((folder / member).exists() for folder in (path.parent, path.parent / path.name.split(".")[0])):
        return None
    command = "unzip" if path.name.lower().endswith(_ZIP) else "tar -xf"
    return f"an archive that is not unpacked; unpack it in its folder: {command} {path.name}"


def _first_file(path: Path) -> str | None:
    """The name of the first file in an archive; None if it has none."""
    if path.name.lower().endswith(_ZIP):
        with zipfile.ZipFile(path) as archive:
            return next((item.filename for item in archive.infolist() if not item.is_dir()), None)
    with tarfile.open(path) as tar:
        while (item := tar.next()) is not None:
            if item.isfile():
                return item.name
    return None
