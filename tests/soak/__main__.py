"""``python tests/soak [--seconds S] [--seed N] [--round R]``: random runs, checked by an oracle; see `rounds`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that this is the package "soak", in workers too

from soak import rounds

if __name__ == "__main__":
    sys.exit(rounds.main())
