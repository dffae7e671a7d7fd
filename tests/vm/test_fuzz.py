"""A short run of the fuzzer; ``python -m tests.vm.fuzz`` makes long ones."""

from tests.vm import fuzz


def test_damaged_object_files_end_clearly():
    files = fuzz.corpus([fuzz.HERE / "data"])
    outcomes, wrong = fuzz.try_seeds(files, range(1500))
    assert wrong == []
    assert len(outcomes) > 4, outcomes
