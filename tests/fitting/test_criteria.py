"""The table of losses on batches: every row reads what was judged, record by record, in any order."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coloured_sets import picture
from torch import Tensor

from beholder.fitting import losses
from beholder.fitting.batches import Batch, gather, liked
from beholder.fitting.criteria import CRITERIA, first_terms, scale_of, targets_of
from beholder.fitting.labels import Labels, read_labels
from beholder.fitting.pictures import Pictures
from beholder.fitting.settings import LOSSES, FitConfig
from beholder.preferences.schema import Medium, Record
from beholder.preferences.store import open_preferences, write_preferences

NAN = math.nan
CPU = torch.device("cpu")


def set_of(folder: Path, by: tuple[str, ...]) -> tuple[Labels, Pictures]:
    """Two, three and one candidates, rated in two dimensions with gaps."""
    import numpy as np

    rng = np.random.default_rng(0)

    def made(**ratings: tuple[float, ...]) -> Record:
        k = len(next(iter(ratings.values())))
        return Record("p", tuple(Medium(picture("red", rng, 8)) for _ in range(k)), ratings=ratings)

    found = [made(a=(1.0, 2.0), b=(2.0, 2.0)), made(a=(3.0, 1.0, 2.0), b=(NAN, 1.0, 3.0)), made(a=(2.0,), b=(NAN,))]
    write_preferences(folder / "set.parquet", found)
    labels = read_labels(open_preferences(folder / "set.parquet"), by)
    return labels, Pictures(labels, lambda images: images, 16)


def batch_of(labels: Labels, pictures: Pictures, records: list[int]) -> Batch:
    batch = gather(labels, pictures, records, CPU)
    assert batch is not None
    return batch


def losses_by_record(name: str, folder: Path, records: list[int], **settings) -> dict[int, Tensor]:
    """Sums of the items' losses [E], by record, of outputs that are a function of the image alone."""
    config = FitConfig(loss=name, **settings)
    labels, pictures = set_of(folder, ("a", "b"))
    criterion = CRITERIA[name]
    targets, grades = targets_of(labels, config, scale_of(labels, criterion))
    terms = first_terms(criterion, grades)
    torch.manual_seed(0)
    everything = torch.randn(len(labels.value_IM), 2, 2, criterion.outputs or len(grades))
    batch = batch_of(labels, pictures, records)
    loss_JE, record_J = criterion.items(everything[batch.image_N], batch, labels, targets, terms, config)
    assert loss_JE.shape == (len(record_J), 2) and loss_JE.isfinite().all()
    return {r: loss_JE[record_J == i].sum(0) for i, r in enumerate(batch.record_R)}


def test_the_table_and_the_settings_name_the_same_losses() -> None:
    assert CRITERIA.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", CRITERIA)
def test_a_record_costs_the_same_in_any_batch(name: str, tmp_path: Path) -> None:
    together = losses_by_record(name, tmp_path, [0, 1, 2])
    mixed = losses_by_record(name, tmp_path, [2, 0, 1])
    for r in range(3):
        alone = losses_by_record(name, tmp_path, [r])
        assert torch.allclose(together[r], alone[r], atol=1e-5) and torch.allclose(together[r], mixed[r], atol=1e-5)
    assert (together[2] == 0).all() == (CRITERIA[name].over != "images"), "one image alone is no comparison"


def test_pairs_are_those_of_their_dimension(tmp_path: Path) -> None:
    labels, pictures = set_of(tmp_path, ("a", "b"))
    batch = batch_of(labels, pictures, [1])
    output = torch.zeros(3, 2, 1, 1)
    output[:, 0, 0, 0] = torch.tensor([1.0, 2.0, 4.0])
    output[:, 1, 0, 0] = torch.tensor([100.0, 0.5, 0.0])
    config = FitConfig(centring=0.1)
    loss_JE, _ = CRITERIA["bradley_terry"].items(
        output, batch, labels, targets_of(labels, config, scale_of(labels, CRITERIA["bradley_terry"]))[0], {}, config
    )
    gaps = {(1.0, 2.0), (1.0, 4.0), (4.0, 2.0), (0.0, 0.5)}  # winner and loser: a 3 > 1, 3 > 2, 2 > 1; b 3 > 1
    expected = sum(
        -math.log(1 / (1 + math.exp(loser - winner))) + 0.1 * (winner + loser) ** 2 for winner, loser in gaps
    )
    assert loss_JE.sum().item() == pytest.approx(expected, rel=1e-5)


def test_groups_leave_out_who_was_not_judged(tmp_path: Path) -> None:
    labels, pictures = set_of(tmp_path, ("a", "b"))
    config = FitConfig(loss="plackett_luce")
    batch = batch_of(labels, pictures, [0, 1, 2])
    output = torch.randn(6, 2, 1, 1)
    criterion = CRITERIA["plackett_luce"]
    loss_GE, record_G = criterion.items(
        output, batch, labels, targets_of(labels, config, scale_of(labels, criterion))[0], {}, config
    )
    assert record_G.tolist() == [0, 0, 1, 1]
    second_b = losses.plackett_luce(output[3:5, 1, :, 0][None], torch.tensor([[1.0, 3.0]]))
    assert loss_GE[3].item() == pytest.approx(second_b.item())


def test_ratings_are_predicted_in_units_of_their_spread(tmp_path: Path) -> None:
    labels, _ = set_of(tmp_path, ("a", "b"))
    config = FitConfig(loss="regression")
    scale = scale_of(labels, CRITERIA["regression"])
    assert scale.offset[0] == pytest.approx(11 / 6) and scale.scale[1] == pytest.approx(
        torch.tensor([2.0, 2, 1, 3]).std().item()
    )
    targets, _ = targets_of(labels, config, scale)
    assert targets.grade_IM is not None
    column = targets.grade_IM[:, 1]
    assert column[~column.isnan()].mean().item() == pytest.approx(0, abs=1e-6)
    assert scale_of(labels, CRITERIA["bradley_terry"]).scale == (1.0, 1.0)


def test_the_first_cuts_of_grades_are_even_and_around_zero() -> None:
    terms = first_terms(CRITERIA["ordinal"], (1.0, 2.0, 3.0, 4.0, 5.0))
    steps = torch.nn.functional.softplus(terms["steps"])
    assert steps.tolist() == pytest.approx([1.0] * 3, abs=0.01) and terms["first_cut"].item() == -1.5


def test_margins_and_temperatures_reach_the_loss(tmp_path: Path) -> None:
    plain = losses_by_record("bradley_terry", tmp_path, [0])
    assert (losses_by_record("bradley_terry", tmp_path, [0], margin=1.0)[0] > plain[0]).all()
    labels, _ = set_of(tmp_path, ("a",))
    soft = read_labels(labels.source, ("a",), temperature=2.0)
    assert soft.win_P[0].item() == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert replace(soft).p_P.min() > 0.5


def test_what_a_prompt_means_is_learnt_from_what_nobody_puts_below_another(tmp_path: Path) -> None:
    labels, pictures = set_of(tmp_path, ("a", "b"))
    batch = batch_of(labels, pictures, [0, 1, 2])
    assert liked(labels, batch, (1.0, 0.0)).tolist() == [1, 2, 5]
    assert liked(labels, batch, (0.0, 1.0)).tolist() == [0, 1, 4, 5], "both of a tie, and who is alone"
    assert liked(labels, batch_of(labels, pictures, [1]), (1.0, -2.0)).tolist() == [0], "3, 1 - 2, 2 - 6"
