"""The unit tests of the Worker's core need src/, pytest, hypothesis and the standard library, and nothing else.

They also run inside the Workers' Python, which has no event loop of its own to start: see `world.run`.
"""

import gc
import sys
from functools import partial
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for world.py, however pytest was told to import

# Whenever a policy comes into force, the gate has the collector walk everything. Here that would be pytest's own
# objects as well, several hundred times: two thirds of the run. So it walks the young ones.
gc.collect = partial(gc.collect, 0)

# A shared machine may stop for longer than hypothesis expects of one example.
settings.register_profile("airgate", deadline=None)
settings.load_profile("airgate")
