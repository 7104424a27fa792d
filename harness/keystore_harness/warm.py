"""What a process needs that others are forked from (`program.fork_from_now_on`): nothing but the product's imports."""

import gc

# As `keystore serve` does: the collector finds nothing in what stays for good.
gc.disable()
import pulumi_keystore.cli  # noqa: E402
import pulumi_keystore.control_plane.processes  # noqa: E402, F401

gc.freeze()
gc.enable()
