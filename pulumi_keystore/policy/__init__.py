"""What a set of declarations has to look like as a whole: the policies, for the policy pack and `keystore check`."""
