"""The parts of the verifier; ``verifier.py`` above, which joins them, begins with an overview.

From what is read off the text to what is concluded:

    structure     structure, tables
    effects       effects, changes
    one step      typeflow, slots, learning, keeping, containers, copying, whole
    pointers      usage, origins, variables, initial, evidence, pointees, fitting
    functions     livein, reach, results, returned, transfers, handled
    conclusions   leftover, lifetimes, guards, needs, proofs, keptguards
"""
