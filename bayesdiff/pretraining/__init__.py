"""How the toybox's four parts were trained, each by a command of its own, and the check of what is shipped."""
