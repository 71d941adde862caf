"""What a run leaves behind and shows on the way: record, checkpoints, pictures, progress, trackers."""
