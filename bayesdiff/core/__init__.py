"""What every room stands on: errors and exit codes, randomness, files that are whole or absent, processes, the machine, names of files."""
