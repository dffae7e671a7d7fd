"""Source into machine code, and the threads that run it: what both engines stand on."""
