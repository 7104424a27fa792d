"""What a keystore can do: Vault servers over mutual TLS, and legacy rows in the control plane's database."""
