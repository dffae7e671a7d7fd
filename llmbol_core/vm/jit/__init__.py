"""The fast engine: hot functions of verified modules as machine code, through LLVM.

Cold code runs in a native interpreter, compiled once per machine; functions that turn out to be hot
are compiled with those they call, quickly at first and well if they run on.

    engine        engine (the door), upkeep, lent, records, population, stretches,
                  holders, natives, linktables
    when, what    compiler, modulenative, background, units, unit, kept, identity, modulecode,
                  bodies, region, excerpts
    lowering      lowering (its parts), emitter, calls, liveness, careful
    loops         loops, looptext, latency, recurrences, views
    interpreter   cold, components, startup, decoded, dispatch, turns, guarded, guarding,
                  lower_cold, lower_waiting

The runtime that both call is written in a small part of Python (``source``), which ``translator``
turns into LLVM's language, and in that language itself:

    ground        source, translator, operators, library, runtime, helpers, linkage, pacing
    memory        values, blocks, burial, outliving, holes, garbage, children, stacks
    text          texts, utf8, readings, reals
    processes     communication, alternatives, spawning, raising, trapping
    built-ins     hostcode, builtins
"""
