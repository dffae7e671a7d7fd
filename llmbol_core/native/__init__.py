"""The ground under every part: files on disk, the machine's threads, machine code.

files         files, shared
threads       threads, team, jobs, notices
compiling     llvm, cpu, processor, identity, cache, code
reals         rounding
running       image, library
for Python    cfunction, entry, arrays, filled, pairs, paircode
"""
