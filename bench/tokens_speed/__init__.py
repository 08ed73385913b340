"""`make bench-tokens`: what verifying, knowing and refusing a token costs where the gate runs."""

import sys
from pathlib import Path

for _folder in ("tests/unit", "src"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / _folder))
