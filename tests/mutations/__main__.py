"""``python tests/mutations [NAME...]``: breaks the library in many ways, and shows that a test notices each; see `run`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that this is the package "mutations"

from mutations import run

if __name__ == "__main__":
    sys.exit(run.main())
