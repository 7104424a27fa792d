"""The program of `make demo`: that of stacks/self-administered, from where Pulumi finds the virtual environment."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent / "stacks" / "self-administered"), run_name="__main__")
