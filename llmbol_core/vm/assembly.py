"""Dis assembly: text to Module.

The syntax is that of ``limbo -S`` and of Inferno's ``asm``::

    top: addw $1,40(fp)              # label, mnemonic, operands: source, middle, destination
         blew 40(fp),4(36(fp)),top   # a label stands for its instruction number
         entry 0, 1                  # pc, type
         desc $1,48,"00c0"           # type number, size, pointer map
         var @mp,24                  # size of the module data
         word @mp+4,1,2,3            # also byte, long, real, string, array, indir, apop
         module Hello
         link 1,0,0x4244b354,"init"  # type, pc, signature, name
         ldts @ldt,1                 # how many import lists
         word @ldt+0,1               # a list begins: how many imports
         ext @ldt+4,0xac849033,"print"
         exceptions 1
         exception 3, 9, 44, -1, 1, 0   # pc1, pc2, offset, type, labels, of which typed
         exctab "fail:*", 12
         exctab *, -1                # closes each exception
         source "hello.b"

What it lacks is added: ``flags``, ``stack`` (extent) and ``signature``, which a listing of any
object needs; ``_`` for an operand that is absent where one is usual; channel buffers
(``newcw $4,40(fp)``). For writing by hand: ``name = expression`` defines a symbol, so that
``count = 40`` allows ``count(fp)``; symbols stand wherever a number does; ``desc Loop,48,(40,44)``
numbers the type itself and lists its pointers; a signature can be a Limbo type in quotes
(``link Loop,0,"fn(n: int): int","loop"``) or the name of a built-in module; and
``imports "$Sys","print","sprint"`` makes a whole import list, its link numbers named ``Sys.print``
and so on.
"""

from __future__ import annotations

from dataclasses import replace

from llmbol_core.vm.directives import DIRECTIVES, Draft, Lookup, no_built_ins
from llmbol_core.vm.isa import OPCODES, OPS, Mode, Op
from llmbol_core.vm.module import ABSENT, HASEXCEPT, HASLDT, NAMES, Instruction, Module, Operand
from llmbol_core.vm.notation import is_usual, spell_operands, usual_places
from llmbol_core.vm.objectfile import operand
from llmbol_core.vm.tokens import Token, TokenStream, unknown

_NONES = {"_": ABSENT, "_6": Operand(Mode.NONE6), "_7": Operand(Mode.NONE7)}
_BASES = {"fp": (Mode.FP, Mode.FP_INDIRECT), "mp": (Mode.MP, Mode.MP_INDIRECT)}
_RESERVED = {*OPCODES, *DIRECTIVES, *_BASES}


def is_reserved(name: str) -> bool:
    """Whether a name means something by itself, so that no label or module can be called so."""
    return name in _RESERVED


def parse_assembly(text: str, path: str = "<text>", built_ins: Lookup = no_built_ins) -> Module:
    """Return the module that a listing describes; raises AssemblyError.

    ``built_ins`` answers for imports that name a built-in module instead of a signature.

    >>> parse_assembly("ret module Small").instructions[0].op.mnemonic
    'ret'
    """
    stream = TokenStream(text, path)
    draft = Draft(stream, built_ins)
    code_size = _collect_symbols(stream)
    while (token := stream.peek()).kind != "end":
        if token.kind != "name":
            raise stream.expected("a label, a mnemonic or a directive")
        stream.take()
        if stream.skip("="):
            stream.expression()
        elif token.text in OPCODES:
            draft.instructions.append(
                _instruction(draft, OPS[OPCODES[token.text]], token, code_size)
            )
        elif token.text in DIRECTIVES:
            DIRECTIVES[token.text](draft, token)
        elif not stream.skip(":"):
            raise unknown(stream, "mnemonic", token, [*OPCODES, *DIRECTIVES])
    return _finish(draft)


def _collect_symbols(stream: TokenStream) -> int:
    """Define all that the text names, so that its order does not matter; count instructions."""
    pc = types = 0
    while (token := stream.take()).kind != "end":
        if token.kind != "name":
            continue
        following = stream.peek()
        if following.kind == "sign" and following.text in ":=":
            if token.text in _RESERVED:
                raise stream.error(f"{token.text!r} has a meaning of its own", token)
            stream.take()
            stream.define(token, pc) if following.text == ":" else stream.defer(token)
        elif token.text == "module":
            stream.take()
        elif token.text == "desc":
            if following.kind == "name":
                stream.define(following, types)
            types += 1
        elif token.text == "imports":
            _name_imports(stream)
        elif token.text in OPCODES:
            pc += 1
    stream.symbols |= {"@mp": 0, "@ldt": 0}
    stream.rewind()
    return pc


def _name_imports(stream: TokenStream) -> None:
    """Define ``Sys.print`` and its like for the strings that follow ``imports``."""
    names: list[str] = []
    while (token := stream.peek()).kind == "string":
        name = stream.string("").decode(*NAMES)
        if names:
            symbol = f"{names[0].removeprefix('$')}.{name}"
            stream.define(token._replace(text=symbol), len(names) - 1)
        names.append(name)
        if not stream.skip(","):
            break


def _finish(draft: Draft) -> Module:
    """Check what only the whole text can tell, and put it together."""
    fail = draft.stream.error
    for number, (wanted, count) in enumerate(zip(draft.imports, draft.import_counts, strict=True)):
        if len(wanted) != count:
            raise fail(f"import list {number} should hold {count} functions, not {len(wanted)}")
    for handler, count in zip(draft.handlers, draft.label_counts, strict=True):
        if len(handler.labels) != count:
            why = f"the exception from pc {handler.pc1} should have {count} labels"
            raise fail(f"{why}, not {len(handler.labels)}")
    types, size = draft.types, draft.result.data_size
    if sorted(types) != list(range(len(types))):
        raise fail(f"{len(types)} types should be numbered 0 to {len(types) - 1}")
    if size and (not types or types[0].size != size):
        found = types[0].size if types else "no"
        raise fail(f"the module data has {size} bytes, but type 0 has {found}")
    flags = HASLDT | (HASEXCEPT if "exceptions" in draft.seen else 0)
    return replace(
        draft.result,
        flags=draft.result.flags if "flags" in draft.seen else flags,
        instructions=tuple(draft.instructions),
        types=tuple(types[number] for number in range(len(types))),
        data=tuple(draft.data),
        exports=tuple(draft.exports),
        imports=tuple(map(tuple, draft.imports)),
        handlers=tuple(draft.handlers),
    )


def _instruction(draft: Draft, op: Op, token: Token, code_size: int) -> Instruction:
    operands = _operands(draft, token)
    places = usual_places(op, min(len(operands), 3))
    if len(operands) > 3 or not is_usual(op, places):
        raise draft.stream.error(f"{op.mnemonic} takes {spell_operands(op)}", token)
    at = dict(zip(places, operands, strict=True))
    made = Instruction(op.number, *(at.get(place, ABSENT) for place in "smd"))
    _check_middle(draft.stream, made.middle, token)
    target = made.destination
    if op.mnemonic == "casel" and target.mode is Mode.MP:
        draft.big_cases.add(target.value)
    if target.mode is Mode.IMMEDIATE and op.has_label and not 0 <= target.value < code_size:
        why = f"there is no instruction {target.value}: the program has {code_size}"
        raise draft.stream.error(why, token)
    return made


def _operands(draft: Draft, mnemonic: Token) -> list[Operand]:
    """Take the operands; the first must stand in the line of its mnemonic."""
    stream = draft.stream
    token, follows = stream.peek(), stream.peek(1)
    if token.line != mnemonic.line or token.kind == "end":
        return []
    if token.kind == "name" and (token.text in _RESERVED or follows.text in (":", "=")):
        return []
    operands = [_operand(draft)]
    while stream.skip(","):
        operands.append(_operand(draft))
    return operands


def _operand(draft: Draft) -> Operand:
    stream = draft.stream
    token = stream.peek()
    if stream.skip("$"):
        return operand(Mode.IMMEDIATE, draft.number("an immediate operand"))
    if stream.skip("*"):
        return _behind(draft, 0)
    if token.text in _NONES and token.text not in stream.symbols:
        stream.take()
        return _NONES[token.text]
    value = draft.number("an operand")
    if not stream.skip("("):
        if token.kind != "name":
            raise stream.expected("'(' behind an offset")
        return operand(Mode.IMMEDIATE, value)
    base = stream.peek().text
    if base in _BASES:
        stream.take()
        stream.need(")")
        return operand(_BASES[base][0], value)
    if not 0 <= value < 1 << 16:
        raise stream.error(f"{value} does not fit an indirect operand: expected 0 to 65535", token)
    made = _behind(draft, value)
    stream.need(")")
    return made


def _behind(draft: Draft, value: int) -> Operand:
    """Take ``offset(fp)``, the slot of an indirect operand."""
    stream = draft.stream
    base = draft.number("an indirect operand", 0, 1 << 16)
    stream.need("(")
    name = stream.name("'fp' or 'mp'")
    if name not in _BASES:
        raise stream.error(f"expected 'fp' or 'mp', found {name!r}", stream.peek(-1))
    stream.need(")")
    return operand(_BASES[name][1], value, base)


def _check_middle(stream: TokenStream, middle: Operand, token: Token) -> None:
    """Refuse what the narrow middle field cannot hold."""
    if middle.mode not in (Mode.NONE, Mode.IMMEDIATE, Mode.FP, Mode.MP):
        raise stream.error("a middle operand cannot be indirect", token)
    least, limit = (-(1 << 15), 1 << 15) if middle.mode is Mode.IMMEDIATE else (0, 1 << 16)
    if not least <= middle.value < limit:
        why = f"{middle.value} does not fit a middle operand: expected {least} to {limit - 1}"
        raise stream.error(why, token)
