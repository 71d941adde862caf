"""Settings: their schema, what is refused, how Hydra composes them, what a run of them is called, and the words of prompts."""
