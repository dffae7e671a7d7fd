import gguf
import numpy as np
import pytest

from llmbol_core.errors import DtypeError, ShapeError
from llmbol_core.ml.dtypes import BY_NUMBER, TYPES, storage_type, storage_type_of

# Type: what the gguf package says, where it is not what ggml's C code says.
DIFFERENT = {"Q8_1": (32, 40)}  # a stale constant there: C's block is f16, f16, 32 bytes
# Rows without a number in GGML.
MEMORY_ONLY = {"U8"}


def test_table_equals_the_gguf_package():
    theirs: dict[str, object] = {
        t.name: (t.value, gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGMLQuantizationType
    }
    ours = {t.name: (t.number, (t.elements, t.block_bytes)) for t in BY_NUMBER.values()}
    for name, size in DIFFERENT.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] == size
        theirs[name] = ours[name]
    assert ours == theirs
    assert set(TYPES) - set(ours) == MEMORY_ONLY


@pytest.mark.parametrize("name", TYPES)
def test_layout_has_no_padding_and_is_little_endian(name):
    layout = TYPES[name].layout
    fields = layout.fields or {"": (layout, 0)}
    assert sum(field[0].itemsize for field in fields.values()) == layout.itemsize
    assert all(field[0].base.byteorder != ">" for field in fields.values())


def test_lookup_says_what_is_nearest():
    assert storage_type("q4_0") is TYPES["Q4_0"]
    with pytest.raises(DtypeError, match=r"named 'q40' \(did you mean 'Q4_0'\?\)"):
        storage_type("q40")
    with pytest.raises(DtypeError, match="complex128"):
        storage_type_of(np.dtype(complex))


def test_rows_divide_into_blocks():
    assert TYPES["Q8_0"].block_shape((3, 64)) == (3, 2)
    assert TYPES["F32"].block_shape(()) == ()
    with pytest.raises(ShapeError, match="Q8_0: a row of 33 is no multiple of the block of 32"):
        TYPES["Q8_0"].block_shape((2, 33))
    with pytest.raises(ShapeError, match="a row of 1 is"):
        TYPES["Q8_0"].block_shape(())
