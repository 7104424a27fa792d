"""One Vault server: requests, logins, archive keys, proofs, and what a keystore remembers."""
