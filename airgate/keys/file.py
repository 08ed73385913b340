"""Files of keys: private ones are readable by their owner alone; made once, replaced as a whole or not at all."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


class FileRefused(Exception):
    """Nothing was written. The message says why."""


def create(file: Path, text: str, otherwise: str) -> None:
    """Write a new file that nobody else can read. `otherwise`: what to do when it is there already.

    Raises FileRefused.
    """
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError:
        raise FileRefused(f"{file} is there already, and is left as it is. {otherwise}") from None
    except OSError as error:
        raise FileRefused(f"{file}: can't be written: {error.strerror}") from None


def replace(file: Path, text: str, *, private: bool = True) -> None:
    """Write a file anew, as a whole or not at all. `private`: nobody else can read it; else who could can go on.

    Raises FileRefused.
    """
    target = file.resolve()  # a link stays one
    try:
        number, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8", newline="") as output:
                output.write(text)
            if not private:
                shutil.copymode(target, name)
            Path(name).replace(target)
        except OSError:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise FileRefused(f"{file}: can't be written: {error.strerror}") from None
