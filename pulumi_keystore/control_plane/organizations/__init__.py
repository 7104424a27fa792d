"""Organizations, the keys they have in escrow, and their history."""
