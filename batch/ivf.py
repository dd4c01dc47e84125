"""How vectors become an IVF: how many lists, centroids by k-means, and what is stored of a vector.

Where recent popularity counts, one number of a vector is often longer than all others together, and cosines, by which
FAISS makes lists for inner products, tell such items apart by it alone: a search then had to look into half of the
lists. So these lists are made by Euclidean distance, with the popularity scaled to what it is worth to the users, and
a list's centroid is the plain mean of its items: the inner product with it is the mean of their scores.
"""

from dataclasses import dataclass
from math import isqrt, log2
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from artifacts.errors import UsageError
from batch.copied import held_by_gpu, require_copied
from batch.indexed import PQ_WIDTH, on_device
from batch.ondisk import filled_on_disk

ONE_LIST_BELOW = 4096  # items; below, one list is quick enough, and nothing is lost
LEAST_OF_LIST = 39  # training vectors of a list (and of a PQ code); FAISS warns below
TRAIN_OF_LIST = 64
PQ_CODES = 256  # 8 bits
POPULARITY_WORTH = 3  # measured: of 0.5 to 10 the least items were searched with it, whatever the interests' length
_BLAS_FROM = 20  # queries; FAISS's own default
_BYTES_OF_ID = 8
_CHUNK = 65_536  # vectors that are scaled at once


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How to build the index.

    Attributes:
        type: What is stored of a vector: ``"Flat"`` all of it, ``"SQ8"`` a byte a number, ``"PQ"`` a byte for four;
            ``"auto"`` is one of them, as :mod:`batch.choose` finds.
        lists: How many lists; 0: chosen by the number of items.
        recall_target: nprobe is raised until the lower end of recall's interval is not below this.
        recall_k: How many best items recall is about.
        seed: Of the training sample and of k-means.
        popularity_weight: How much the logarithm of an item's recent events counts beside the inner product of the
            vectors; 0: the index holds the vectors alone.
        memory: The most bytes that the index may take in memory; 0: as many as it needs.
    """

    type: str = "Flat"
    lists: int = 0
    recall_target: float = 0.95
    recall_k: int = 100
    seed: int = 1
    popularity_weight: float = 0.0
    memory: int = 0


def lists_for(items: int, lists: int = 0) -> int:
    """Say how many lists an index of *items* has: *lists* if the items allow it; if that is 0, 4 times their root.

    Raises:
        UsageError: If there are fewer than ``LEAST_OF_LIST`` items to each of *lists*.
    """
    if lists > (most := max(items // LEAST_OF_LIST, 1)):
        raise UsageError(
            f"[index] lists = {lists}: {items} items allow at most {most}; lower it, or 0 to have it chosen"
        )
    if lists:
        return lists
    return 1 if items < ONE_LIST_BELOW else min(4 * isqrt(items), items // TRAIN_OF_LIST)


def popularity_scale(interests: np.ndarray, weight: float) -> float:
    """Say what popularity is multiplied by where lists are made: what it is worth to *interests*, float32 [n, d].

    In 30,000 vectors of length 1 with interests of length 5 and 20 (weight 1.5), lists made so needed 0.8 % and 1.2 %
    of the items to be searched for a recall of 0.95; by cosine it was 45 % and 57 %.

    Returns:
        A power of two near ``POPULARITY_WORTH`` times *weight* over the root of the mean squared length, so that it
        does not move from night to night; 0 for the weight 0.
    """
    if not weight:
        return 0.0
    length = float(np.sqrt(np.square(interests, dtype=np.float64).sum(axis=1).mean())) if len(interests) else 0.0
    return float(2.0 ** round(log2(POPULARITY_WORTH * weight / (length or 1.0))))


def bytes_of(kind: str, *, items: int, width: int, lists: int) -> int:
    """Say how many bytes an index of the type *kind* takes, within a kilobyte or two for each 1,000 of its lists."""
    codes = {"Flat": 4 * width, "SQ8": width, "PQ": _codes_of(width)}[kind]
    books = {"Flat": 0, "SQ8": 2, "PQ": PQ_CODES}[kind]
    return items * (codes + _BYTES_OF_ID) + (lists + books) * 4 * width


def training_rows(items: int, options: IndexOptions) -> int:
    """Say how many of *items* vectors centroids (and PQ codes) are trained on."""
    wanted = lists_for(items, options.lists) * TRAIN_OF_LIST
    return min(items, max(wanted, LEAST_OF_LIST * PQ_CODES if options.type == "PQ" else 0))


def train(
    vectors: np.ndarray,
    options: IndexOptions,
    *,
    threads: int,
    device: str = "cpu",
    scaling: np.ndarray | None = None,
    folder: Path | None = None,
) -> Any:
    """Build an IVF of *vectors*, float32 [n, d], all finite; the same arguments give the same bytes.

    Args:
        vectors: Row i becomes id i.
        options: Type, lists and seed.
        threads: Part of the profile: k-means changes with it.
        device: ``gpu`` builds there, copies the index back and compares it with *vectors*.
        scaling: Where lists are made by Euclidean distance: what each number of a vector is multiplied by for it,
            float32 [d], more than 0. None makes them by cosine.
        folder: Where, on a CPU, the lists of an index of more than ``options.memory`` are made part by part; the bytes
            are the same. None makes them in memory.

    Returns:
        The index, on the CPU; if it was made in *folder* its lists are in a file, and it cannot be changed.

    Raises:
        UsageError: If there are too few vectors for the lists or for PQ.
        DeviceError: If the index that comes back from a GPU is not the one that should be.
    """
    items, width = vectors.shape
    lists = lists_for(items, options.lists)
    if options.type == "PQ" and items < (least := LEAST_OF_LIST * PQ_CODES):
        raise UsageError(f"[index] type = PQ: needs {least} items, found {items}; take Flat or SQ8")
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    sample = np.arange(items)
    if (wanted := training_rows(items, options)) < items:
        sample = np.sort(np.random.default_rng(options.seed).choice(items, wanted, replace=False))
    ivf = _empty(width, lists, options.type)
    ivf.cp.seed = options.seed
    ivf.cp.min_points_per_centroid = 1  # FAISS warns on stderr; `lists_for` has refused already
    if scaling is not None:
        own = _train_scaled(ivf, vectors, sample, scaling, seed=options.seed, device=device)
        return _filled(ivf, vectors, own, options, folder)
    shown = vectors if len(sample) == items else vectors[sample]
    if device == "gpu":
        return _build_on_gpu(ivf, vectors, shown)
    ivf.train(shown)
    own = ivf.quantizer.search(vectors, 1)[1][:, 0]  # of all at once: a few rows alone get other bits, and other lists
    return _filled(ivf, vectors, own, options, folder)


def _filled(ivf: Any, vectors: np.ndarray, own: np.ndarray, options: IndexOptions, folder: Path | None) -> Any:
    """Add *vectors* to the lists *own*, int64 [n], in memory or in *folder*."""
    items, width = vectors.shape
    if folder and options.memory and bytes_of(options.type, items=items, width=width, lists=ivf.nlist) > options.memory:
        return filled_on_disk(ivf, vectors, own, memory=options.memory, folder=folder)
    ivf.add_core(items, faiss.swig_ptr(vectors), None, faiss.swig_ptr(own))
    return ivf


def _build_on_gpu(ivf: Any, vectors: np.ndarray, shown: np.ndarray) -> Any:
    """Train *ivf* on what is *shown* and add *vectors*, both on a GPU.

    An IVF that is moved to a GPU forgets how its lists are to be made, the seed too. So it stays here while it is
    trained, and only the search for the nearest centroid, which is nearly all of the work, is done there.
    """
    with held_by_gpu():
        resources = faiss.StandardGpuResources()
        nearest = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatIP(ivf.d))
        ivf.clustering_index = nearest
        ivf.train(shown)
        ivf.clustering_index = None  # FAISS has a bare pointer to it
        built = faiss.index_cpu_to_gpu(resources, 0, ivf)
        built.add(vectors)
        copied = faiss.index_gpu_to_cpu(built)
    require_copied(built, copied, vectors)
    return copied


def _train_scaled(
    ivf: Any, vectors: np.ndarray, sample: np.ndarray, scaling: np.ndarray, *, seed: int, device: str
) -> np.ndarray:
    """Train lists and codes on rows *sample* of *vectors*, each number times its *scaling*; gives the lists of all."""
    scaling = scaling.astype(np.float32)
    nearest = on_device(faiss.IndexFlatL2(len(scaling)), device)
    clustering = faiss.Clustering(len(scaling), ivf.nlist)
    clustering.niter, clustering.seed, clustering.min_points_per_centroid = ivf.cp.niter, seed, 1
    clustering.train(vectors[sample] * scaling, nearest)  # which leaves the centroids in it
    centroids = faiss.vector_to_array(clustering.centroids).reshape(ivf.nlist, -1) / scaling
    chunks = (vectors[start : start + _CHUNK] * scaling for start in range(0, len(vectors), _CHUNK))
    own = np.concatenate([nearest.search(chunk, 1)[1][:, 0] for chunk in chunks])
    ivf.quantizer.add(centroids)
    ivf.by_residual = isinstance(ivf, faiss.IndexIVFPQ)  # a byte of SQ8 ends with the vectors it was shown: all ends
    rows = np.concatenate([sample, vectors.argmin(axis=0), vectors.argmax(axis=0)])
    shown, lists = vectors[rows], own[rows]
    if ivf.by_residual:
        shown -= centroids[lists]
    ivf.train_encoder(len(shown), faiss.swig_ptr(shown), faiss.swig_ptr(lists))
    ivf.is_trained = True
    return np.asarray(own)


def _empty(width: int, lists: int, kind: str) -> Any:
    quantizer = faiss.IndexFlatIP(width)
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "Flat":
        return faiss.IndexIVFFlat(quantizer, width, lists, metric)
    if kind == "SQ8":
        return faiss.IndexIVFScalarQuantizer(quantizer, width, lists, faiss.ScalarQuantizer.QT_8bit, metric)
    return faiss.IndexIVFPQ(quantizer, width, lists, _codes_of(width), 8, metric)


def _codes_of(width: int) -> int:
    return width // PQ_WIDTH if width % PQ_WIDTH == 0 else width
