"""How long servers take to start: `python -m bench.start` prints the table of docs/harness.md."""

from __future__ import annotations

import statistics
import time
from contextlib import AbstractContextManager

from keystore_harness import VaultCluster, VaultServer
from keystore_harness.drivers import driver

RUNS = 5


def seconds(vault: AbstractContextManager[object]) -> float:
    """Return how long it takes to start."""
    started = time.monotonic()
    with vault:
        return time.monotonic() - started


def main() -> None:
    """Print the table."""
    print("| driver | single server | cluster of three |\n| --- | --- | --- |")
    for name in ("process", "container"):
        chosen = driver(name)
        single = statistics.mean(seconds(VaultServer(driver=chosen)) for _ in range(RUNS))
        cluster = statistics.mean(seconds(VaultCluster(driver=chosen)) for _ in range(RUNS))
        print(f"| {name} | {single:.1f} s | {cluster:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
