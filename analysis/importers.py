"""``python -m analysis.importers``: the earlier name of ``joyful import``."""

import sys

from joyful.analysis.importers.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
