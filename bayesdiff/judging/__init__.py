"""Samples that another trainer wrote, judged: recognised by their names, scored once, paired over checkpoints."""
