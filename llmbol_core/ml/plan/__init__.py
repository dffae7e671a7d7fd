"""Graphs as lists of machine-code operations that run a batch in one call.

rooms     where values live: buffers of a sample, and how a sample lies in one
emitter   collects operations and rooms while a part of a graph is lowered
rules     THE table of what operations lower to; others run as NumPy code in between
network   a lowered part bound to buffers for batches of a size, and run
"""
