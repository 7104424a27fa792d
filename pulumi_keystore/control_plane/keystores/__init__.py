"""Keystores of organizations: registration and swap, proving, connections, fencing, clean-ups."""
