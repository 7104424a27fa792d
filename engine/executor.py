"""Runs a Pulumi program for the language host, in the Python that the host chose (`pulumi-language-python-exec`)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pulumi
from pulumi import runtime

TOLD = 32
"""Exit status where the user has been told everything: the engine need not say more."""


def options() -> argparse.Namespace:
    """Return what the host says of the program and of whom to talk to."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("monitor", "engine", "project", "root_directory", "stack", "pwd", "dry_run", "organization"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--parallel", type=int)
    parser.add_argument("program")
    parser.add_argument("arguments", nargs="*")
    return parser.parse_args()


def own(program: str) -> str:
    """Return the traceback of an error from the program's first own line on."""
    error, here = sys.exc_info()[1], str(Path(program).resolve())
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    first = next((at for at, frame in enumerate(frames) if frame.filename.startswith(here)), 0)
    return traceback.format_exc(limit=first - len(frames))


def main() -> int:
    """Run the program; return the exit status."""
    given = options()
    runtime.set_all_config(runtime.get_config_env(), runtime.get_config_secret_keys_env())
    runtime.configure(
        runtime.Settings(
            monitor=given.monitor,
            engine=given.engine,
            project=given.project,
            stack=given.stack,
            parallel=given.parallel,
            dry_run=given.dry_run == "true",
            organization=given.organization,
            root_directory=given.root_directory,
        )
    )
    sys.argv = [given.program, *given.arguments]
    if given.pwd:
        os.chdir(given.pwd)
    # Where a program fails, futures are left that nobody asks for: that is no news.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    with ThreadPoolExecutor(max(given.parallel or 1, 1) * 4) as threads:
        loop.set_default_executor(threads)
        try:
            loop.run_until_complete(runtime.run_in_stack(lambda: runpy.run_path(given.program, run_name="__main__")))
        except pulumi.RunError as error:
            pulumi.log.error(str(error))
            return 1
        except Exception:  # noqa: BLE001 - whatever a program does
            pulumi.log.error(f"Program failed with an unhandled exception:\n{own(given.program)}")
            return TOLD
        finally:
            loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
