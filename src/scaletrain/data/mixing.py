"""How often each training conversation is there: epochs and weights of corpora, and a temperature.

Of what is to be there 2.3 times, every conversation is there twice and three in ten, by the hash of what they say, once
more: so what is taken depends on no random generator, and changes little when conversations come or go. The validation
rows stay as they come: mixing is for training.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.documents import Documents, Ints
from scaletrain.errors import DataError
from scaletrain.log import get_logger

Floats = npt.NDArray[np.float64]
NOT_SAMPLED = "not_sampled"

log = get_logger(__name__)


def mix(documents: Documents, members: Ints, section: DataSection) -> Ints:
    """Return the training conversations so often as they are wanted: all the first copies, then the second ones, ...

    Tokens of a corpus and language are n; wanted are n x epochs; with weights as many in all, and of these the corpus's
    share; with a temperature T the shares of corpora and languages (with weights: of a corpus's languages) become
    proportional to their power 1/T (Raffel et al. 2020, arXiv:1910.10683, 3.5.2). Neither repeats a conversation more
    than `max_epochs` times (Muennighoff et al. 2023, arXiv:2305.16264, found four nearly as good as new text).
    Raises DataError where nothing is left.
    """
    if not len(members):
        return members
    strata, numbers = np.unique(documents.strata()[members], return_inverse=True)
    corpus_of = np.zeros(len(strata), np.int64)
    corpus_of[numbers] = documents.corpus[members]
    tokens = np.bincount(numbers, weights=documents.num_tokens[members], minlength=len(strata)).astype(np.float64)
    epochs = _epochs(tokens, corpus_of, section)
    chance = documents.key[members, 1] / 2.0**64  # key[:, 0] has decided the split
    copies = np.floor(epochs[numbers] + chance).astype(np.int64)
    if not copies.any():
        raise DataError("data.corpora: the epochs leave no conversation to train on; raise them")
    return np.concatenate([members[copies > number] for number in range(int(copies.max()))])


def _epochs(tokens: Floats, corpus_of: Ints, section: DataSection) -> Floats:
    """Return how often each stratum is wanted."""
    asked: Floats = np.array([corpus.epochs for corpus in section.corpora], np.float64)[corpus_of]
    weights = _weights(section.corpora)
    if weights is None and section.temperature == 1:
        return asked
    sizes = tokens * asked
    flat: Floats = sizes ** (1 / section.temperature)
    if weights is None:
        shares = flat / flat.sum()
    else:
        of_corpus = np.bincount(corpus_of, weights=flat, minlength=len(weights))
        shares = weights[corpus_of] * flat / of_corpus[corpus_of]
        shares /= shares.sum()  # a corpus may have nothing to train on
    wanted = shares * sizes.sum() / tokens
    if (wanted > section.max_epochs).any():
        names = [section.corpora[number].name or section.corpora[number].format for number in corpus_of.tolist()]
        highest = int(wanted.argmax())
        log.warning(
            "the mix asks for %s %.1f times; data.max_epochs=%g limits it, so that its share stays smaller than asked",
            names[highest],
            wanted[highest],
            section.max_epochs,
        )
    limited: Floats = np.minimum(wanted, section.max_epochs)
    return limited


def _weights(corpora: Sequence[Corpus]) -> Floats | None:
    weights = [corpus.weight for corpus in corpora if corpus.weight is not None]
    return np.array(weights) if weights else None
