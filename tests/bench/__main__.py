"""``python tests/bench [--rows P1,P4] [--rounds N] [--quick]`` prints the tables of docs/benchmarks.md."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # so that this is the package "bench", in workers too

from bench import (
    clusters,
    flat,
    growth,
    harness,
    kept,
    memory,
    processes,
    seeing,
    services,
    stages,
    tasks,
    threads,
    tuning,
)

# Importing them has registered their rows.
FAMILIES = [clusters, flat, growth, kept, memory, processes, seeing, services, stages, tasks, threads, tuning]

if __name__ == "__main__":
    sys.exit(harness.main())
