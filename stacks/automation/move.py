"""Move an organization to another of its keystores from a program of your own, by Pulumi's Automation API.

Usage: python move.py STACK KEYSTORE [--yes], where STACK is one of the program in ../self-administered.
"""

import sys
from pathlib import Path

from pulumi import automation

PROGRAM = Path(__file__).resolve().parent.parent / "self-administered"


def move(name: str, keystore: str, *, sure: bool) -> int:
    """Say what would move, ask, move it with progress, and return the exit code."""
    stack = automation.select_stack(name, work_dir=str(PROGRAM))
    before = stack.get_config("active")
    stack.set_config("active", automation.ConfigValue(keystore))
    try:
        stack.preview(on_output=show)
        if not sure and input(f"Move to {keystore}? Only 'yes' will be accepted: ") != "yes":
            stack.set_config("active", before)
            return 1
        done = stack.up(on_output=show)
    except automation.CommandError as error:
        # Nothing has moved: what is declared is again what there is.
        stack.set_config("active", before)
        problem = next(
            (line.strip() for line in str(error).splitlines() if line.strip().startswith("error:")), "failed"
        )
        print(problem, file=sys.stderr)
        return 1
    print(f"{done.outputs['keys_moved'].value} archive keys are now in {done.outputs['active'].value}")
    return 0


def show(line: str) -> None:
    """Show what concerns the migration, and nothing else."""
    if "migrat" in line or "keystore:" in line:
        print(line.strip())


def main() -> int:
    """Read the command line."""
    names = [argument for argument in sys.argv[1:] if argument != "--yes"]
    if len(names) != 2:  # noqa: PLR2004 - a stack and a keystore
        print(__doc__, file=sys.stderr)
        return 2
    return move(*names, sure="--yes" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
