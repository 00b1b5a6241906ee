"""How hypothesis draws its examples: the same every time, so that a run that fails fails again; others with a profile's name.

``KITH_TEST_HYPOTHESIS=nightly`` draws anew in each run, to look where nobody has looked, and prints how to draw the same again.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("kith", derandomize=True)
settings.register_profile("nightly", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("KITH_TEST_HYPOTHESIS", "kith"))
