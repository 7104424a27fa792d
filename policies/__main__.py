"""Registers the pack; what it checks is in `keystore_policies`."""

from keystore_policies import pack

pack()
