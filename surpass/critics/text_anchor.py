"""How much a message looks like those a system was made for: an autoencoder over text
embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from surpass.errors import InputError

__all__ = ["Anchor", "Messages", "Theme", "fit_anchor"]

Messages = Sequence[str] | Tensor


@dataclass(frozen=True)
class Theme:
    """A cluster of odd messages: how many, the words (or columns) that set it apart, and its most
    central members."""

    size: int
    words: tuple[str, ...]
    members: tuple[int, ...]
    distance: float


@dataclass(frozen=True)
class Anchor:
    """What the training messages look like.

    `held_out` are the similarities of messages the autoencoder did not see; below `odd`, their 5 %
    quantile, a message counts as an outlier.
    """

    embed: Any
    net: nn.Module
    held_out: Float[np.ndarray, "h"]
    odd: float

    def similarity(self, messages: Messages) -> Float[np.ndarray, "n"]:
        """cos(e, AE(e)) of each message."""
        return _cosine(self.net, self.embed(messages))

    def themes(self, messages: Messages, most: int = 8, least: int = 5) -> list[Theme]:
        """Clusters of messages (k-means, k by the silhouette) of at least `least` members, ranked
        by size times dissimilarity to the anchor."""
        n = len(messages)
        if n < 2 * least:
            return []
        e = self.embed(messages).numpy()
        label, best = np.zeros(n, dtype=int), -1.0
        for k in range(2, min(most, n // least) + 1):
            tried = cast(Any, KMeans)(k, n_init=3, random_state=0).fit_predict(e)
            if len(set(tried)) < 2:
                break
            score = float(silhouette_score(e, tried, metric="cosine"))
            if score > best:
                label, best = tried, score
        similar = self.similarity(messages)
        found = []
        for k in np.unique(label):
            mine = np.flatnonzero(label == k)
            if len(mine) >= least:
                middle = e[mine].mean(0)
                central = mine[np.argsort(-(e[mine] @ middle))]
                words = self.embed.words(messages, mine)
                far = 1.0 - float(similar[mine].mean())
                found.append(Theme(len(mine), words, tuple(central.tolist()), far))
        return sorted(found, key=lambda theme: -theme.size * theme.distance)


class _Texts:
    """TF-IDF of words and of three to five characters, reduced to `dims`, on the unit sphere."""

    def __init__(self, texts: Sequence[str], dims: int) -> None:
        self.words_of = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        self.letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
        whole = self._stacked(texts, fit=True)
        words: Any = self.words_of.transform(texts)
        self.usual = np.asarray(words.mean(0))[0]
        dims = min(dims, min(whole.shape) - 1)
        self.reduce = TruncatedSVD(dims, random_state=0).fit(whole)

    def _stacked(self, texts: Sequence[str], fit: bool = False) -> Any:
        from scipy.sparse import hstack

        how = "fit_transform" if fit else "transform"
        return hstack([getattr(v, how)(texts) for v in (self.words_of, self.letters)])

    def __call__(self, texts: Messages) -> Tensor:
        return _unit(
            torch.from_numpy(self.reduce.transform(self._stacked(cast(Any, list(texts))))).float()
        )

    def words(self, texts: Messages, rows: np.ndarray, top: int = 5) -> tuple[str, ...]:
        """Terms more frequent than in the anchor; those the anchor never used come first."""
        counted = TfidfVectorizer(ngram_range=(1, 1), sublinear_tf=True)
        found = np.asarray(counted.fit_transform([texts[i] for i in rows]).mean(0))[0]  # type: ignore[union-attr]
        names = counted.get_feature_names_out()
        known = self.words_of.vocabulary_
        usual = np.array([self.usual[known[w]] if w in known else 0.0 for w in names])
        return tuple(names[np.argsort(-(found - usual))[:top]])


class _Vectors:
    """Standardized columns on the unit sphere, for streams of vectors."""

    def __init__(self, rows: Tensor) -> None:
        self.mean, self.scale = rows.float().mean(0), rows.float().std(0).clamp_min(1e-6)

    def __call__(self, rows: Messages) -> Tensor:
        x = (torch.as_tensor(rows).float() - self.mean) / self.scale
        return _unit(torch.cat((x, torch.ones_like(x[:, :1])), 1))

    def words(self, rows: Messages, at: np.ndarray, top: int = 3) -> tuple[str, ...]:
        moved = ((torch.as_tensor(rows).float()[at] - self.mean) / self.scale).mean(0)
        order = moved.abs().argsort(descending=True)[:top].tolist()
        return tuple(f"column {j} {float(moved[j]):+.1f} sd" for j in order)


def fit_anchor(messages: Messages, *, dims: int = 128, epochs: int = 50, seed: int = 0) -> Anchor:
    """Embed the messages and train the autoencoder (m - 64 - 16 - 64 - m, loss 1 - cosine) on four
    fifths of them, stopping when the rest does not improve for five epochs.

    Args:
        messages: texts, or vectors [n, d]. dims: of the text embedding. epochs: at most.

    Raises:
        InputError: when there are fewer than 100 messages.
    """
    n = len(messages)
    if n < 100:
        raise InputError(f"an anchor needs at least 100 messages, not {n}; give more")
    order = np.random.default_rng(seed).permutation(n)
    cut = n - n // 5
    texts = not isinstance(messages, Tensor)
    inside: Any = [messages[i] for i in order[:cut]] if texts else messages[order[:cut]]
    outside: Any = [messages[i] for i in order[cut:]] if texts else messages[order[cut:]]
    embed: Any = _Texts(inside, dims) if texts else _Vectors(inside)
    e, held = embed(inside), embed(outside)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _train(e, held, epochs)
    similar = _cosine(net, held)
    return Anchor(embed, net, similar, float(np.quantile(similar, 0.05)))


def _train(e: Tensor, held: Tensor, epochs: int) -> nn.Module:
    m = e.shape[1]
    layers = [nn.Linear(m, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64)]
    net = nn.Sequential(*layers, nn.ReLU(), nn.Linear(64, m))
    descent, best, since = torch.optim.Adam(net.parameters(), 1e-3), np.inf, 0
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    for _ in range(epochs):
        for rows in torch.randperm(len(e)).split(64):
            loss = (1 - torch.cosine_similarity(e[rows], net(e[rows]), dim=1)).mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
        now = 1 - float(_cosine(net, held).mean())
        since = 0 if now < best - 1e-4 else since + 1
        if since == 0:
            best, kept = now, {k: v.clone() for k, v in net.state_dict().items()}
        if since >= 5:
            break
    net.load_state_dict(kept)
    return net.eval()


@torch.no_grad()
def _cosine(net: nn.Module, e: Tensor) -> np.ndarray:
    return torch.cosine_similarity(e, net(e), dim=1).numpy()


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp_min(1e-8)
