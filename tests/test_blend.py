"""Networks side by side: each learns alone, and together they say the mean."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch

from ray_jobs.families.knowledge.batch import Batch
from ray_jobs.families.knowledge.loss import loss
from ray_jobs.families.knowledge.networks.attention import Attention
from ray_jobs.families.knowledge.networks.blend import Blend, BlendNetwork
from ray_jobs.families.knowledge.networks.lstm import Lstm
from tests.knowledge_parts import KNOWLEDGE, SMALL, VOCABULARY
from tests.test_knowledge_behaviour import school

pytestmark = pytest.mark.usefixtures("one_thread")

TABLE = school()


@pytest.fixture(scope="module")
def batch() -> Batch:
    made = KNOWLEDGE.collate(KNOWLEDGE.examples(TABLE, VOCABULARY), VOCABULARY)
    assert isinstance(made, Batch)
    return made


@pytest.fixture
def network() -> BlendNetwork:
    torch.manual_seed(0)
    made = Blend(**SMALL["blend"], dropout=0.0, blank=0.0, hint=0.0).prepare([TABLE], VOCABULARY)
    assert isinstance(made, BlendNetwork)
    return made


def test_what_is_said_is_the_mean_of_what_the_members_say(
    network: BlendNetwork, batch: Batch
) -> None:
    network.eval()
    assert len(network.members) == 4
    mean = torch.stack([member(batch) for member in network.members]).mean(dim=0)
    torch.testing.assert_close(network(batch), mean)


def test_each_member_has_the_slopes_it_would_have_alone(
    network: BlendNetwork, batch: Batch
) -> None:
    torch.autograd.backward(loss(network(batch), batch))
    for member in network.members:
        together = [p.grad.clone() for p in member.parameters() if p.grad is not None]
        member.zero_grad()
        torch.autograd.backward(loss(member(batch), batch))
        alone = [p.grad for p in member.parameters() if p.grad is not None]
        assert len(together) == len(alone)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(4 * one, other, atol=1e-4, rtol=1e-4)


def test_the_loss_of_one_network_is_the_plain_sum(network: BlendNetwork, batch: Batch) -> None:
    chances = torch.sigmoid(network.recurrent[0](batch))[batch.scored]
    right = batch.correct[batch.scored]
    by_hand = -(right * chances.log() + (1 - right) * (1 - chances).log()).sum()
    torch.testing.assert_close(loss(network.recurrent[0](batch), batch), by_hand)


def test_every_setting_reaches_the_members_that_have_it() -> None:
    sizes: dict[str, Any] = {"width": 24, "layers": 3, "heads": 3, "block": 5, "neighbours": 7}
    changed = Blend(**sizes, dropout=0.35, blank=0.15, hint=0.5)
    for member in (changed.recurrent, changed.attentive):
        for field in fields(member):
            assert getattr(member, field.name) == getattr(changed, field.name), field.name


def test_the_members_are_as_they_would_be_alone() -> None:
    assert Blend().recurrent == Lstm()
    assert Blend().attentive == Attention()
