"""Pages for people, and the script that writes some of them."""
