"""Regions of hot code as text in LLVM's language.

The lowerer knows scalar instructions; the modules for the others register what they lower:

    one region    lowerer, ways, operands
    scalar        expressions, reals
    others        call, channel, control, heap, link, list, storage, text
    loops         loop
"""
