"""What every part stands on: files on disk, the machine's threads and its machine code."""
