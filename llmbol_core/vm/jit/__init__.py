"""The fast engine: hot functions of verified modules as machine code, through LLVM."""
