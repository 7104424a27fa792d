"""Says what it was started as, a line of JSON, and ends as its first argument says."""

import json
import os
import signal
import sys
from pathlib import Path

_OF_PYTHON = ("LC_CTYPE", "__CF_USER_TEXT_ENCODING")
"""What an interpreter sets where it is started without a locale (PEP 538), and macOS."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)

if __name__ == "__main__":
    print(
        json.dumps(
            {
                "environment": {name: value for name, value in os.environ.items() if name not in _OF_PYTHON},
                "arguments": sys.argv[1:],
                "leads its session": os.getsid(0) == os.getpid(),
                "folder": str(Path.cwd()),
                "handlers": [str(signal.getsignal(number)) for number in _SIGNALS],
                "masked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                "umask": os.umask(0o077),
            }
        ),
        flush=True,
    )
    print("said on the other one", file=sys.stderr)
    if sys.argv[1] == "waits":
        signal.pause()
    sys.exit(int(sys.argv[1]))
