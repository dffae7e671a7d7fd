"""The program of a compiled model: samples in, outputs as text, JSON, or labels of the best.

    [--json] [--top-k K] [FILE]

All of it is Dis code: the options, the loop over parts of the samples that fit the memory, the
choice of the highest outputs, the labels. ``$Ml`` reads and writes numbers.
"""

from __future__ import annotations

import json
import math

from llmbol_core.deploy.interface import LABELS, SHAPE
from llmbol_core.deploy.listing import NIL, Listing, Routine
from llmbol_core.nn.model import Model
from llmbol_core.vm.calling import INIT_SIGNATURE
from llmbol_core.vm.signature import type_signature

_USAGE = "usage: [--json] [--top-k K] [FILE.npy | .npz | .csv | .json | -]"


def add(out: Listing, model: Model, bind: Routine, forward: Routine) -> None:
    """Add the functions init, labels and shape and what they need."""
    _tables(out, model)
    rank = _rank(out, model)
    usage = _usage(out)
    options = _options(out, model, usage)
    opened = _open(out)
    _init(out, model, [bind, options, opened, forward, rank])
    _labels(out)
    _shape(out, model)


def _tables(out: Listing, model: Model) -> None:
    """Add the labels as they are and as JSON."""
    for name, form in (("names", str), ("quoted", json.dumps)):
        texts = [form(label) for label in model.labels]
        if texts:
            out.table(name, texts)
        else:
            out.pointer(name)


def _usage(out: Listing) -> Routine:
    """Add the function that says what the program takes and ends it."""
    usage = out.routine("usage", ["what"], "Say what is wrong with the arguments.")
    file = usage.slot("file")
    out.call(usage, "Sys.fildes", ["$2"], file)
    out.call(
        usage,
        "Sys.fprint",
        [file, out.string(f"%s\n{_USAGE}\n"), usage.slot("what")],
        extra="s",
    )
    usage.code(f"raise\t{out.string('fail:usage')}")
    return usage


def _options(out: Listing, model: Model, usage: Routine) -> Routine:
    """Add the function that reads the arguments; the file's name goes to module data."""
    options = out.routine("options", ["rest"], "Read the arguments behind the program's name.")
    rest, word = options.slot("rest"), options.slot("word")
    char, path = options.slot("char", "i"), out.pointer("path")
    as_json, top = out.word("json"), out.word("top")
    if model.output is not None:
        options.code(f"movw\t${model.output.top_k},{top}")
    options.label("argument")
    options.code(f"beqw\t{rest},{NIL},parsed")
    options.code(f"headp\t{rest},{word}")
    options.code(f"tail\t{rest},{rest}")
    options.code(f"beqc\t{word},{out.string('--json')},tojson")
    options.code(f"beqc\t{word},{out.string('--top-k')},totop")
    options.code(f"lenc\t{word},{char}")
    options.code(f"blew\t{char},$1,isfile")
    options.code(f"indc\t{word},$0,{char}")
    options.code(f"beqw\t{char},$45,unknown")
    options.label("isfile")
    options.code(f"bnew\t{path},{NIL},second")
    options.code(f"movp\t{word},{path}")
    options.code("jmp\targument")
    options.label("tojson")
    options.code(f"movw\t$1,{as_json}")
    options.code("jmp\targument")
    options.label("totop")
    options.code(f"beqw\t{rest},{NIL},nonumber")
    options.code(f"headp\t{rest},{word}")
    options.code(f"tail\t{rest},{rest}")
    options.code(f"cvtcw\t{word},{top}")
    options.code(f"cvtwc\t{top},{options.slot('again')}")
    options.code(f"bnec\t{word},{options.slot('again')},nonumber")
    options.code(f"bgew\t{top},$0,argument")
    for label, text in (
        ("nonumber", "--top-k: expected a number from 0"),
        ("second", "one file at a time"),
        ("unknown", "no such option: "),
    ):
        options.label(label)
        options.code(f"movp\t{out.string(text)},{options.slot('what')}")
        if label == "unknown":
            options.code(f"addc\t{word},{options.slot('what')}")
        options.code(f"call\t{out.invoke(options, usage, [options.slot('what')])},usage")
    options.label("parsed")
    options.code("ret")
    return options


def _open(out: Listing) -> Routine:
    """Add the function that opens the file, or takes standard input."""
    opened = out.routine("opened", comment="Open the samples: a file, or standard input.")
    file, path = opened.slot("file"), "path(mp)"
    opened.code(f"beqw\t{path},{NIL},stdin")
    opened.code(f"beqc\t{path},{out.string('-')},stdin")
    out.call(opened, "Sys.open", [path, "$0"], file)
    opened.code(f"bnew\t{file},{NIL},ready")
    out.call(opened, "Sys.fildes", ["$2"], file)
    out.call(opened, "Sys.fprint", [file, out.string("%s: %r\n"), path], extra="s")
    opened.code(f"raise\t{out.string('fail:open')}")
    opened.label("stdin")
    out.call(opened, "Sys.fildes", ["$0"], file)
    opened.label("ready")
    opened.code(f"movp\t{file},0(16(fp))")
    opened.code("ret")
    return opened


def _init(out: Listing, model: Model, parts: list[Routine]) -> None:
    """Add the program itself."""
    bind, options, opened, forward, rank = parts
    init = out.routine("init", ["context", "argv"], "Print the outputs for the samples of a file.")
    out.export(init, INIT_SIGNATURE)
    argv, file, samples = init.slot("argv"), init.slot("file"), init.slot("samples")
    most, done = init.slot("most", "i"), init.slot("done", "i")
    init.code(f"call\t{out.invoke(init, bind)},bind")
    init.code(f"beqw\t{argv},{NIL},begin")
    init.code(f"tail\t{argv},{argv}")
    init.code(f"call\t{out.invoke(init, options, [argv])},options")
    init.label("begin")
    frame = out.invoke(init, opened)
    init.code(f"lea\t{file},16({frame})")
    init.code(f"call\t{frame},opened")
    training = model.train
    names = (training.inputs, training.targets) if training else ("inputs", "targets")
    shape = out.number_list(init, model.input.shape)
    out.call(init, "Ml.samples", [file, *map(out.string, names), shape], samples)
    out.call(init, "Ml.fit", ["plan(mp)", samples], most)
    out.call(init, "Sys.fildes", ["$1"], file)
    init.code(f"movw\t$0,{done}")
    _edges(out, init, file, "[", f"{out.string(_HEADER)}")
    _parts(out, init, forward, rank)
    init.label("end")
    _edges(out, init, file, "]\n", None)
    init.code("ret")


def _parts(out: Listing, init: Routine, forward: Routine, rank: Routine) -> None:
    """Add the loop over parts of the samples."""
    file, samples, most = init.slot("file"), init.slot("samples"), init.slot("most", "i")
    x, y, values = init.slot("x"), init.slot("y"), init.slot("values")
    done, first = init.slot("done", "i"), init.slot("first", "i")
    init.label("part")
    out.call(init, "Ml.take", [samples, most], x)
    init.code(f"beqw\t{x},{NIL},end")
    frame = out.invoke(init, forward, [x])
    init.code(f"lea\t{y},16({frame})")
    init.code(f"call\t{frame},forward")
    init.code("bgtw\ttop(mp),$0,best")
    init.code("bnew\tjson(mp),$0,rows")
    out.call(init, "Ml.print", [file, y])
    init.code("jmp\tpart")
    init.label("rows")
    init.code(f"movw\t$1,{first}")
    init.code(f"beqw\t{done},$0,isfirst")
    init.code(f"movw\t$0,{first}")
    init.label("isfirst")
    out.call(init, "Ml.print_json", [file, y, first])
    init.code(f"movw\t$1,{done}")
    init.code("jmp\tpart")
    init.label("best")
    out.call(init, "Ml.reals", [y], values)
    frame = out.invoke(init, rank, [values, done])
    init.code(f"lea\t{done},16({frame})")
    init.code(f"call\t{frame},rank")
    init.code("jmp\tpart")


_HEADER = "sample\trank\tlabel\tvalue\n"


def _edges(out: Listing, init: Routine, file: str, bracket: str, header: str | None) -> None:
    """Write what stands before or behind the rows."""
    past, plain = f"past{len(init.lines)}", f"plain{len(init.lines)}"
    init.code(f"beqw\tjson(mp),$0,{plain}")
    out.call(init, "Sys.fprint", [file, out.string(bracket)])
    init.code(f"jmp\t{past}")
    init.label(plain)
    if header is not None:
        init.code(f"blew\ttop(mp),$0,{past}")
        out.call(init, "Sys.fprint", [file, header])
    init.label(past)


def _rank(out: Listing, model: Model) -> Routine:
    """Add the function that prints the highest outputs of each sample, best first.

    Of equal ones the first wins; what is no number comes last.
    """
    outputs = math.prod(model.output_shape)
    rank = out.routine("rank", ["values", "sample:i"], "Print the highest outputs of each sample.")
    values, marks = rank.slot("values"), rank.slot("marks")
    sample, base, total = (rank.slot(name, "i") for name in ("sample", "base", "total"))
    most, number, at = (rank.slot(name, "i") for name in ("most", "number", "at"))
    rank.code(f"lena\t{values},{total}")
    rank.code(f"movw\t$0,{base}")
    rank.code(f"movw\ttop(mp),{most}")
    rank.code(f"movw\t${outputs},{at}")
    rank.code(f"blew\t{most},{at},sampled")
    rank.code(f"movw\t{at},{most}")
    rank.label("sampled")
    rank.code(f"bgew\t{base},{total},ranked")
    rank.code(f"newaz\t${outputs},$Mark,{marks}")
    rank.code(f"movw\t$1,{number}")
    rank.label("next")
    _scan(rank, outputs)
    _line(out, rank)
    rank.code(f"addw\t$1,{number}")
    rank.code(f"blew\t{number},{most},next")
    rank.code(f"addw\t$1,{sample}")
    rank.code(f"addw\t${outputs},{base}")
    rank.code("jmp\tsampled")
    rank.label("ranked")
    rank.code(f"movw\t{sample},0(16(fp))")
    rank.code("ret")
    return rank


def _scan(rank: Routine, outputs: int) -> None:
    """Find the highest output that has not been marked, and mark it."""
    values, marks, place = rank.slot("values"), rank.slot("marks"), rank.slot("place", "i")
    best, i, at, base = (rank.slot(name, "i") for name in ("best", "i", "at", "base"))
    highest, value = rank.slot("highest", "r"), rank.slot("value", "r")
    rank.code(f"movw\t$-1,{best}")
    rank.code(f"movw\t$0,{i}")
    rank.label("scan")
    rank.code(f"blew\t${outputs},{i},found")
    rank.code(f"indb\t{marks},{place},{i}")
    rank.code(f"cvtbw\t0({place}),{at}")
    rank.code(f"bnew\t{at},$0,skip")
    rank.code(f"addw\t{i},{base},{at}")
    rank.code(f"indf\t{values},{place},{at}")
    rank.code(f"movf\t0({place}),{value}")
    rank.code(f"beqw\t{best},$-1,higher")
    rank.code(f"bgtf\t{value},{highest},higher")
    rank.code(f"beqf\t{highest},{highest},skip")
    rank.code(f"bnef\t{value},{value},skip")
    rank.label("higher")
    rank.code(f"movw\t{i},{best}")
    rank.code(f"movf\t{value},{highest}")
    rank.label("skip")
    rank.code(f"addw\t$1,{i}")
    rank.code("jmp\tscan")
    rank.label("found")
    rank.code(f"indb\t{marks},{place},{best}")
    rank.code(f"cvtwb\t$1,0({place})")


def _line(out: Listing, rank: Routine) -> None:
    """Print one of the highest outputs."""
    label, text, comma = rank.slot("label"), rank.slot("text"), rank.slot("comma")
    best, place = rank.slot("best", "i"), rank.slot("place", "i")
    number, sample = rank.slot("number", "i"), rank.slot("sample", "i")
    out.call(rank, "Ml.numeral", [rank.slot("highest", "r"), "json(mp)"], text)
    rank.code("bnew\tjson(mp),$0,object")
    rank.code(f"cvtwc\t{best},{label}")
    rank.code(f"beqw\tnames(mp),{NIL},unnamed")
    rank.code(f"indw\tnames(mp),{place},{best}")
    rank.code(f"movp\t0({place}),{label}")
    rank.label("unnamed")
    line = out.string("%d\t%d\t%s\t%s\n")
    out.call(rank, "Sys.print", [line, sample, number, label, text], extra="iiss")
    rank.code("jmp\tprinted")
    rank.label("object")
    out.call(rank, "Sys.sprint", [out.string('"%d"'), best], label, extra="i")
    rank.code(f"beqw\tquoted(mp),{NIL},unquoted")
    rank.code(f"indw\tquoted(mp),{place},{best}")
    rank.code(f"movp\t0({place}),{label}")
    rank.label("unquoted")
    rank.code(f"movp\t{out.string(',' + chr(10))},{comma}")
    rank.code(f"addw\t{sample},{number},{place}")
    rank.code(f"bgtw\t{place},$1,following")
    rank.code(f"movp\t{NIL},{comma}")
    rank.label("following")
    line = out.string('%s{"sample": %d, "rank": %d, "label": %s, "value": %s}')
    found = [line, comma, sample, number, label, text]
    out.call(rank, "Sys.print", found, extra="siiss")
    rank.label("printed")


def _labels(out: Listing) -> None:
    """Add the function that tells what the outputs stand for."""
    labels = out.routine("labels", comment="What the outputs stand for.")
    out.export(labels, type_signature(LABELS))
    found, i, place = labels.slot("list"), labels.slot("i", "i"), labels.slot("place", "i")
    labels.code(f"lena\tnames(mp),{i}")
    labels.label("label")
    labels.code(f"blew\t{i},$0,listed")
    labels.code(f"subw\t$1,{i}")
    labels.code(f"indw\tnames(mp),{place},{i}")
    labels.code(f"consp\t0({place}),{found}")
    labels.code("jmp\tlabel")
    labels.label("listed")
    labels.code(f"movp\t{found},0(16(fp))")
    labels.code("ret")


def _shape(out: Listing, model: Model) -> None:
    """Add the function that tells the shape of one sample."""
    shape = out.routine("shape", comment="The shape of one sample of the input.")
    out.export(shape, type_signature(SHAPE))
    shape.code(f"movp\t{out.number_list(shape, model.input.shape)},0(16(fp))")
    shape.code("ret")
