"""Keras models around MIND and BST: compile, fit, evaluate and predict as people know them, on the torch backend."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from features.mapped import blocks, joined
from models.backend import keras
from models.bst import Bst
from models.candidates import CHUNK, in_chunks
from models.losses import binary_cross_entropy, full_softmax, sampled_softmax, score_targets, serving_scores
from models.mind import Mind

Batch = tuple[dict[str, npt.NDArray[Any]], npt.NDArray[Any], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """The examples of one epoch: how many, and what turns some of their rows into a batch."""

    examples: int
    assemble: Callable[[npt.NDArray[np.int64]], Batch]


@contextmanager
def reproducible(seed: int, *, threads: int = 1) -> Iterator[None]:
    """Make what torch does inside follow from *seed*, and give back its random state and settings afterwards.

    The number of threads belongs to it: sums are split among them. More than one seldom pays for networks of this
    size, and where other programs want the same cores, threads that wait for each other cost ten times the work.
    """
    deterministic, before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(deterministic)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Feeds Keras with batches that are put together when they are needed; every epoch has as many."""

    def __init__(self, begin: Callable[[int], Epoch], *, batch: int, seed: int | None = None) -> None:
        """Cut an epoch's examples into batches.

        Args:
            begin: From the epoch (from 0) to its examples.
            batch: Examples of a batch, or a few less.
            seed: Every epoch's order follows from it; None keeps the examples in order.
        """
        super().__init__(workers=0)
        self._begin, self._seed = begin, seed
        self.number, self._running = 0, False  # of the epoch, from 0; whether it has begun
        self._epoch = begin(0)
        self._first = self._epoch.examples
        self._batches = max(1, -(-self._epoch.examples // batch))
        self._order = self._shuffled()

    def _shuffled(self) -> npt.NDArray[np.int64] | None:
        """Put the epoch's rows into its order, [examples]; None where that is their own."""
        if self._seed is None:
            return None
        (order,) = joined((np.arange(block.start, block.stop),) for block in blocks(self._epoch.examples))
        np.random.default_rng([self._seed, self.number]).shuffle(order)
        return order

    def _rows(self, index: int) -> npt.NDArray[np.int64]:
        """Give a batch's rows: the first ones have one more where the examples do not come out even."""
        size, more = divmod(self._epoch.examples, self._batches)
        start = index * size + min(index, more)
        stop = start + size + (index < more)
        return np.arange(start, stop) if self._order is None else self._order[start:stop]

    @property
    def examples(self) -> int:
        """How many examples the first epoch has."""
        return self._first

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self._batches

    def __getitem__(self, index: int) -> Batch:
        """Put a batch together."""
        return self._epoch.assemble(self._rows(index))

    def on_epoch_begin(self) -> None:
        """Go on to the next epoch's examples and order."""
        if self._running:
            self.number += 1
            self._epoch = self._begin(self.number)
            self._order = self._shuffled()
        self._running = True

    def go_on_after(self, number: int) -> None:
        """Let the next epoch be the one after *number*."""
        self.number, self._running = number, True


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws the items that all users of a batch are compared with.

    Attributes:
        draws: How many are drawn with replacement; equal ones count once.
        shares: Probability of every item at each draw, [items].
    """

    draws: int
    shares: Tensor

    def draw(self) -> Tensor:
        """Draw items: different ones, ascending."""
        drawn: Tensor = torch.unique(torch.multinomial(self.shares, self.draws, replacement=True))
        return drawn

    def log_inclusion(self, items: Tensor) -> Tensor:
        """Logarithm of the probability that :meth:`draw` holds each of *items*: log(1 - (1 - q)^draws)."""
        shares = self.shares[items].double()
        return torch.log(-torch.expm1(self.draws * torch.log1p(-shares))).float()


def sampler_of(counts: npt.NDArray[np.int64], draws: int) -> Sampler:
    """Draw items in proportion to (events + 1)^0.75: popular ones more often, each one at times."""
    shares = (counts + 1.0) ** 0.75
    return Sampler(draws, torch.from_numpy((shares / shares.sum()).astype(np.float32)))


def hide_ids(inputs: Sequence[Tensor], rate: float) -> list[Tensor]:
    """Turn each known row into row 1, unknown, with probability *rate*, so that training learns what row 1 means."""
    if rate <= 0:
        return list(inputs)
    return [torch.where((rows > 1) & (torch.rand(rows.shape, device=rows.device) < rate), 1, rows) for rows in inputs]


class _Trainer(keras.Model):  # type: ignore[misc]  # keras ships no types
    """What both trainers share: a torch module inside, and a quality that only validation measures."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str], quality: Any) -> None:
        super().__init__()
        self.wrapper = keras.layers.TorchModuleWrapper(module)  # shows the parameters to Keras's optimizers
        self.names = tuple(names)
        self.quality = quality
        self.built = True

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        parameter: Tensor = next(self.wrapper.module.parameters())
        return parameter.device

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Report the loss alone in training."""
        return {"loss": self._loss_tracker.result()}

    def report(self, loss: Tensor, users: int) -> dict[str, Any]:
        """Add a validation batch's *loss*, and report all of validation so far."""
        self._loss_tracker.update_state(loss, sample_weight=users)
        return {"loss": self._loss_tracker.result(), self.quality.name: self.quality.result()}


class MindTrainer(_Trainer):
    """MIND as a Keras model.

    A batch is (inputs by name as of ``input_names(Role.USER, spec)``, catalogue rows [users, T], weights [users, T]).
    ``predict`` gives interests [users, K, d] and their count [users]; ``evaluate`` gives the loss against the whole
    catalogue, and the share of targets among the best 50 items of the whole catalogue, as serving scores them.
    """

    def __init__(
        self,
        module: Mind,
        names: Sequence[str],
        catalogue: Sequence[Tensor],
        sampler: Sampler | None = None,
        added: Tensor | None = None,
    ) -> None:
        """Wrap *module*, which is trained in place.

        Args:
            module: The network.
            names: Its inputs, in order.
            catalogue: Rows of every item [items], by item feature.
            sampler: Draws the items to compare with; None compares with the whole catalogue.
            added: What popularity adds to each item's scores, [days, items]; a batch's ``day`` [users] is a row of it.
        """
        super().__init__(module, names, keras.metrics.Mean(name="hit_rate_50"))
        added = None if added is None else added.to(self.device)
        sampler = sampler and Sampler(sampler.draws, sampler.shares.to(self.device))
        self.catalogue = _Items(tuple(rows.to(self.device) for rows in catalogue), sampler, added)
        self.vectors: Tensor | None = None

    @property
    def mind(self) -> Mind:
        """The network."""
        module: Mind = self.wrapper.module
        return module

    def call(self, x: dict[str, Tensor], training: bool = False) -> tuple[Tensor, Tensor]:
        """Give interests and count."""
        inputs = [x[name] for name in self.names]
        interests, count, _ = self.mind.interests(*hide_ids(inputs, self.mind.config.unknown_rate if training else 0))
        return interests, count

    def train_step(self, data: Any) -> dict[str, Any]:
        """Step, and forget the item vectors that validation kept."""
        self.vectors = None
        logs: dict[str, Any] = super().train_step(data)
        return logs

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """Softmax over the whole catalogue, or over what the sampler drew."""
        (interests, count), targets, weights = y_pred, y.to(self.device).long(), sample_weight.to(self.device)
        config, sampler = self.mind.config, self.catalogue.sampler
        how: dict[str, Any] = {"attention": config.attention, "power": config.power}
        if sampler is None:
            vectors = self.mind.item_vectors(*hide_ids(self.catalogue.rows, config.unknown_rate))
            positive, others = score_targets(interests, count, vectors[targets], vectors, **how)
            return full_softmax(self._popular(x, positive, targets), self._popular(x, others, slice(None)), weights)
        drawn = sampler.draw()
        asked = torch.cat([targets.flatten(), drawn])
        rows = hide_ids([feature[asked] for feature in self.catalogue.rows], config.unknown_rate)
        vectors = self.mind.item_vectors(*rows)
        wanted, shared = vectors[: targets.numel()], vectors[targets.numel() :]
        positive, others = score_targets(interests, count, wanted.reshape(*targets.shape, -1), shared, **how)
        return sampled_softmax(
            self._popular(x, positive, targets),
            self._popular(x, others, drawn),
            weights,
            hits=targets[:, :, None] == drawn,
            log_q=sampler.log_inclusion(targets),
            candidate_log_q=sampler.log_inclusion(drawn),
        )

    def _popular(self, x: Any, scores: Tensor, items: Tensor | slice) -> Tensor:
        """Add to *scores* what popularity adds to *items*, where it counts.

        Each user's own items [users, T] have scores [users, T]; shared ones [S] have scores [users, any, S].
        """
        added = self.catalogue.added
        if added is None:
            return scores
        day = x["day"].to(self.device).long()
        if isinstance(items, slice):
            return scores + added[:, items][day][:, None]
        picked = added[day[:, None], items]  # of the batch's days alone
        return scores + (picked if items.ndim > 1 else picked[:, None])

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure a validation batch against the whole catalogue, a chunk of it at a time."""
        x, y, weights = data
        interests, count = self(x, training=False)
        targets, weights = y.to(self.device).long(), weights.to(self.device)
        if self.vectors is None:
            self.vectors = in_chunks(self.mind, self.catalogue.rows)
        positives = self.vectors[targets]
        reached = self._popular(x, serving_scores(interests, count, positives), targets)
        config = self.mind.config
        totals, better = [], torch.zeros_like(targets)
        for start in range(0, len(self.vectors), CHUNK):
            chunk = self.vectors[start : start + CHUNK]
            positive, others = score_targets(
                interests, count, positives, chunk, attention=config.attention, power=config.power
            )
            here = slice(start, start + CHUNK)
            totals.append(self._popular(x, others, here).logsumexp(dim=-1, keepdim=True))
            scores = self._popular(x, serving_scores(interests, count, chunk)[:, None], here)
            better += (scores > reached[:, :, None]).sum(dim=-1)
        positive = self._popular(x, positive, targets)
        self.quality.update_state(better < 50, sample_weight=weights)
        return self.report(full_softmax(positive, torch.cat(totals, dim=-1), weights), len(targets))


@dataclass(frozen=True, slots=True)
class _Items:
    """What Keras need not look into."""

    rows: tuple[Tensor, ...]
    sampler: Sampler | None
    added: Tensor | None


class BstTrainer(_Trainer):
    """BST as a Keras model.

    A batch is (inputs by name as of ``input_names(Role.RANKER, spec)``, labels [users, C], weights [users, C]).
    ``predict`` gives scores [users, C]; ``evaluate`` gives cross entropy, and the area under the ROC curve.
    """

    def __init__(self, module: Bst, names: Sequence[str], *, unknown_rate: float = 0.02) -> None:
        """Wrap *module*, which is trained in place.

        Args:
            module: The network.
            names: Its inputs, in order.
            unknown_rate: Share of ids that training turns into the unknown row.
        """
        super().__init__(module, names, keras.metrics.AUC(name="auc", num_thresholds=1000, from_logits=True))
        self.unknown_rate = unknown_rate

    def call(self, x: dict[str, Tensor], training: bool = False) -> Tensor:
        """Give logits [users, C]."""
        inputs = [x[name] for name in self.names]
        if training:
            ids = [name.startswith(("history_", "profile_", "candidate_")) for name in self.names]
            hidden = iter(hide_ids([rows for rows, is_id in zip(inputs, ids, strict=True) if is_id], self.unknown_rate))
            inputs = [next(hidden) if is_id else rows for rows, is_id in zip(inputs, ids, strict=True)]
        module: Bst = self.wrapper.module
        return module.logits(*inputs)

    def predict_step(self, data: Any) -> Tensor:
        """Give probabilities."""
        return torch.sigmoid(super().predict_step(data))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """Weighted binary cross entropy."""
        return binary_cross_entropy(y_pred, y.to(self.device), sample_weight.to(self.device))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure a validation batch."""
        x, y, weights = data
        logits = self(x, training=False)
        self.quality.update_state(y, logits, sample_weight=weights)
        return self.report(self.compute_loss(y=y, y_pred=logits, sample_weight=weights), len(y))
