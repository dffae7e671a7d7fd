"""What every part stands on: files on disk, the machine's threads and its machine code.

files         files, shared
threads       threads, team, jobs, notices
compiling     llvm, cpu, processor, identity, cache, code
running       image, library
for Python    cfunction, entry, arrays, filled, pairs, paircode
"""
