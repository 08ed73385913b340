"""The gate's own code, as it runs at the edge, for the commands that judge policy: never a copy of it."""

import sys
from pathlib import Path

# Last, so that nothing in src/ can stand in front of a library.
sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))

from bundle import Bundle, load_bundle, load_pointer

__all__ = ["Bundle", "load_bundle", "load_pointer"]
