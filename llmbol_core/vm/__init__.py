"""Inferno's Dis virtual machine: object files, assembler, verifier, two engines.

``machine.py`` holds ``InfernoVM``, the door for everyone else. Where the rest stands, from what
depends on nothing to what depends on all:

    instructions  isa (THE table), meaning, module, traps, magic, notation
    Limbo types   layout, limbo, signature
    object files  objectfile (bytes to Module), objectwriter, payload, symbols, contents,
                  dependencies
    assembly      assembly (text to Module), directives, tokens, parsing, disassembly
    stack code    stackcode, stackops, stackflow, stacklift
    memory        mapping, arena, shortage, heaptypes, objects, strings, handles, collector, remains

    verification  verifier (begins with an overview), verification (its parts), proven, pauses,
                  rooms

    running       interpreter (the definition), steps, handlers_control, handlers_heap,
                  handlers_text, handlers_channel, checks, exceptions, conversion, ieee
    processes     process, scheduler, channels, groups, stopped, limits
    fast engine   jit, engines (the choice of one)
    modules       loader, moduledata, links, offers, returns
    host          host, given, environment, files (the tree that a program sees), systemfiles,
                  processfiles, errortext
    from Python   machine, calling, guessing, onethread
    tools         debugger, observation, trace, profiler, inspection, places, values, codemap
"""
