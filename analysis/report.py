"""``python -m analysis.report``: the earlier name of ``joyful report``."""

import sys

from joyful.analysis.report import main

if __name__ == "__main__":
    sys.exit(main())
