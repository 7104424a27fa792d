"""The whole of pulumi-keystore on one machine, told as a story (`make demo`)."""
