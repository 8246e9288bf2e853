from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segformer.checkpoints.architecture import expected_state
from segformer.checkpoints.format import Format
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.key_table import KeyTable, Row, read, with_prefix, write
from segformer.errors import UserError
from segformer.models.build import model_config

TABLE = KeyTable(
    name="a test",
    rows=(
        Row("stages.{i}.blocks.{j}.query", "s{I}.b{j}.q"),
        Row("stages.{i}.key_value", ("s{I}.k", "s{I}.v")),
        Row(("both.{i}.first", "both.{i}.second"), "joined{R}.in_{s}"),
        Row("linear", "convolution", as_convolution=True),
    ),
    signature=("s1.b0.q.weight", "convolution.weight"),
    dropped={r"unused\..*": "never used"},
)
OURS = {
    "stages.0.blocks.2.query.weight": torch.arange(6.0).view(2, 3),
    "stages.1.key_value.weight": torch.arange(8.0).view(4, 2),
    "both.3.first.bias": torch.arange(2.0),
    "both.3.second.bias": torch.arange(3.0) + 7,
    "linear.weight": torch.ones(2, 5),
    "linear.bias": torch.zeros(2),
}
THEIRS = {
    "s1.b2.q.weight": torch.arange(6.0).view(2, 3),
    "s2.k.weight": torch.arange(4.0).view(2, 2),
    "s2.v.weight": torch.arange(4.0, 8.0).view(2, 2),
    "joined0.in_bias": torch.tensor([0.0, 1, 7, 8, 9]),
    "convolution.weight": torch.ones(2, 5, 1, 1),
    "convolution.bias": torch.zeros(2),
}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_rows_are_applied_in_both_directions() -> None:
    assert_same(write(TABLE, OURS), THEIRS)
    state, notes = read(TABLE, THEIRS, OURS)
    assert_same(state, OURS)
    assert notes == []


def test_what_is_left_out_has_a_reason() -> None:
    _, notes = read(TABLE, THEIRS | {"unused.a": torch.zeros(1), "unused.b": torch.zeros(1)}, OURS)
    assert notes == ["left out unused.a, unused.b: never used"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("s2.v.weight"), "tensor 's2.v.weight' is missing from a checkpoint of a test"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown tensor 'extra' in a checkpoint of a test"),
        (lambda s: s.update({"convolution.bias": torch.zeros(3)}), r"'convolution.bias' must be \(2,\), got \(3,\)"),
        (lambda s: s.update({"joined0.in_bias": torch.zeros(4)}), r"'joined0.in_bias' must have 5 rows, got \(4,\)"),
        (lambda s: s.update({"s2.k.weight": torch.zeros(2, 9)}), "s2.k.weight, s2.v.weight must have the same shape"),
        (lambda s: s.update({"s2.k.weight": torch.zeros(())}), "s2.k.weight, s2.v.weight must have the same shape"),
    ],
)
def test_a_checkpoint_that_does_not_fit(change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    state = dict(THEIRS)
    change(state)
    with pytest.raises(UserError, match=message):
        read(TABLE, state, OURS)


def test_a_tensor_without_a_row_is_not_dropped() -> None:
    with pytest.raises(UserError, match=r"a checkpoint of a test has no place for the tensor 'new\.weight'"):
        write(TABLE, OURS | {"new.weight": torch.zeros(1)})


def test_signature_and_prefix() -> None:
    assert not TABLE.matches(THEIRS)
    assert TABLE.matches(THEIRS | {"s1.b0.q.weight": torch.zeros(1)})
    assert with_prefix(TABLE.rows[1:2], "net.")[0].their_names == ("net.s{I}.k", "net.s{I}.v")
    assert not TABLE.has_decoder


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("encoder", ["mit_b0", "mit_b2"])
def test_every_table_names_every_tensor_once(form: Format, encoder: str) -> None:
    for table in form.tables:
        state = expected_state(model_config(encoder), 7)
        state = {name: t for name, t in state.items() if table.has_decoder or name.startswith("encoder.")}
        theirs = {name: torch.empty(t.shape) for name, t in write(table, state).items()}
        assert table.matches(theirs) or form is FORMATS["tao"]
        again, notes = read(table, theirs, state)
        assert again.keys() == state.keys()
        assert notes == []
