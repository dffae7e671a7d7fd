"""Functions of built-in modules as machine code, which ``hostcode`` calls in place of Python's.

They do the usual part of what those do, and leave the rest to them:

    $Sys      text, files, printing, format, given
    $Math     math, arrays, elementary, control
    reals     realbits, exponentials, angles, hyperbolic (Python's functions are made of them, too)
"""
