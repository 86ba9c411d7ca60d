"""Dropout that several processes share: how much falls, what is kept, and whose rows are whose."""

import pytest
import torch

from training import parallel
from training.dropout import Dropout


def test_a_share_is_dropped_and_the_rest_makes_up_for_it():
    torch.manual_seed(0)
    x = torch.ones(50, 40, 30, requires_grad=True)
    found = Dropout(0.1)(x)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert (found == 0).float().mean().item() == pytest.approx(0.1, abs=0.005)  # five deviations
    found.sum().backward()
    assert x.grad.equal(found.detach()), "gradients pass where values do"
    assert Dropout(0.1).eval()(x) is x
    assert Dropout(0.0)(x).equal(x) and not Dropout(1.0)(x).any()


@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 3, 3)])
def test_ranks_drop_what_one_process_would(shape, monkeypatch):
    """Each of its own rows, and the next mask of all is again alike."""
    x = torch.rand(shape) + 1

    def drawn(rank, ranks):
        monkeypatch.setattr(parallel, "rank", lambda: rank)
        monkeypatch.setattr(parallel, "count", lambda: ranks)
        torch.manual_seed(7)
        drop, rows = Dropout(0.5), len(x) // ranks
        return [drop(x[rank * rows : (rank + 1) * rows]) for _ in range(2)]

    whole, parts = drawn(0, 1), [drawn(rank, 2) for rank in (0, 1)]
    for number in (0, 1):
        assert torch.cat([part[number] for part in parts]).equal(whole[number])
    assert not parts[0][0].ne(0).equal(parts[1][0].ne(0)), "not one mask for every half"
