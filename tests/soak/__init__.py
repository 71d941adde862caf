"""The soak: a small study that is killed, starved of its disk and damaged, and has to end bit for bit as an undisturbed one."""
