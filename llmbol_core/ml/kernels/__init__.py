"""Kernels in machine code, authored in Python with explicit vectors.

    kinds        the types of numbers that kernels compute with
    declaration  what a kernel is: a function that writes its code, and the types of its parameters
    vectors      values and pointers to write code with
    builder      loops, branches, constants, arithmetic that Python has no operators for
    target       the instruction sets that there is code for; which one this machine runs
    library      code made once per machine and kept on disk; calls of it by the thread team

The other files hold the kernels. Each has a slow, obvious twin in NumPy that defines it; with
``LLMBOL_KERNELS=none`` the twins do all the work.
"""
