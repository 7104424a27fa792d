"""Whether each keystore answers, and when people are told that it does not."""
