"""BiLSTM classifier: Tang et al. 2019, Distilling Task-Specific Knowledge from BERT (1903.12136), section 3.1.

    words → [static ; tuned] embeddings → LSTM in each direction → last states h → linear → ReLU → dropout → linear

Of two texts both are read by the same LSTMs, and the head takes [h1 ; h2 ; |h1 - h2| ; h1 ⊙ h2]. Static and tuned
tables begin with the same word vectors, and only the second is trained (the two channels of Kim 2014, 1408.5882).

Padding is in no state: each direction reads its text from its own end, with what is behind the text in the batch
after it, and the state is taken at the text's last word. It is what packed sequences compute, with nothing that a
runtime has not, and quicker on a CPU than they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lianzhi.errors import DataError, RecipeError
from lianzhi.models.catalog import registry
from lianzhi.models.options import Share, Width, WordModelConfig
from lianzhi.models.text.vectors import WordVectors, read_vectors

NAME = "bilstm"
DEFAULT_WIDTH = 50
SPREAD = 0.25  # of the vectors of words that have none, as Kim 2014 draws them


class BiLSTMConfig(WordModelConfig):
    """Options of `bilstm`.

    >>> BiLSTMConfig(vocabulary=("[PAD]", "[UNK]", "good", "bad")).hidden
    150
    """

    num_classes: int = Field(default=2, ge=1, le=1 << 20)
    width: Width | None = Field(default=None, description="of an embedding; default: of the vectors, or 50")
    hidden: Width = Field(default=150, description="units of the LSTM of a direction")
    linear: Width = Field(default=200, description="units of the layer before the logits")
    dropout: Share = Field(default=0.3, description="before the logits")


class BiLSTM(nn.Module):
    """Token ids (batch, tokens) to logits (batch, classes); made by the zoo, see `bilstm`."""

    def __init__(self, config: BiLSTMConfig, words: int, width: int) -> None:
        super().__init__()
        self.pairs = config.pairs
        self.static = nn.Embedding(words, width)
        self.tuned = nn.Embedding(words, width)
        self.static.weight.requires_grad_(False)
        self.forwards = nn.LSTM(2 * width, config.hidden, batch_first=True)
        self.backwards = nn.LSTM(2 * width, config.hidden, batch_first=True)
        self.linear = nn.Linear((8 if config.pairs else 2) * config.hidden, config.linear)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.linear, config.num_classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of texts; ids, mask (1 where a token counts) and segment (0 or 1) are of shape (batch, tokens)."""
        if not self.pairs:
            states = self.states(input_ids, attention_mask)
        elif token_type_ids is None:
            raise DataError(
                "a bilstm of pairs needs token_type_ids, which tell the two texts apart; give segments: true to the task"
            )
        else:
            one = self.states(input_ids, attention_mask * (token_type_ids == 0))
            two = self.states(input_ids, attention_mask * (token_type_ids == 1))
            states = torch.cat([one, two, (one - two).abs(), one * two], -1)
        return {"logits": self.classifier(self.dropout(functional.relu(self.linear(states))))}

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The last states of both directions over the tokens of the mask, which stand in one run: (batch, 2 · hidden).

        Those of no token are zero.
        """
        length = ids.shape[1]
        place = torch.arange(length, device=ids.device)
        count = mask.sum(1, keepdim=True)
        first = torch.where(mask > 0, place, length - 1).amin(1, keepdim=True)
        onward = (first + place).clamp(max=length - 1)
        back = (first + count - 1 - place).clamp(min=0)
        last = (place == count - 1).unsqueeze(-1)
        read = [(self.forwards, onward), (self.backwards, back)]
        return torch.cat([self._last(lstm, ids.gather(1, order), last) for lstm, order in read], -1)

    def _last(self, lstm: nn.LSTM, ids: Tensor, last: Tensor) -> Tensor:
        """The LSTM's state where `last` (batch, tokens, 1) is true: by a sum, whose channels can be pruned."""
        states, _ = lstm(torch.cat([self.static(ids), self.tuned(ids)], -1))
        return (states * last).sum(1)


@registry.register(
    NAME,
    "BiLSTM over word vectors, for one text or two",
    paper="https://arxiv.org/abs/1903.12136",
    config=BiLSTMConfig,
)
def bilstm(settings: BiLSTMConfig) -> BiLSTM:
    """Make the model; a word that has no vector gets one from PyTorch's generator, and how many had is in `remarks`.

    >>> made = bilstm(BiLSTMConfig(vocabulary=100, width=20, linear=400))
    >>> sum(weight.numel() for name, weight in made.named_parameters() if weight.shape != (100, 20))
    351602

    Raises:
        RecipeError: vectors are given without the words, or with another width than theirs.
        DataError: the vectors cannot be read.
    """
    given = settings.vocabulary
    named, count = ((), given) if isinstance(given, int) else (given, len(given))
    vectors = None if settings.vectors is None else read_vectors(settings.vectors)
    width = settings.width or (DEFAULT_WIDTH if vectors is None else vectors.width)
    _check(settings, named, vectors, width)
    model = BiLSTM(settings, count, width)
    with torch.no_grad():
        model.tuned.weight.uniform_(-SPREAD, SPREAD)
        if vectors is not None:
            model.zoo_remarks = {"remarks": (_fill(model, named, vectors, settings.vectors),)}  # type: ignore[assignment]
        model.static.weight.copy_(model.tuned.weight)
    saved = {**settings.to_dict(), "vocabulary": count, "vectors": None, "width": width}
    model.zoo = {"name": NAME, "config": saved}  # type: ignore[assignment]
    return model


def _check(settings: BiLSTMConfig, named: Sequence[str], vectors: WordVectors | None, width: int) -> None:
    if not settings.vocabulary:
        raise RecipeError(
            f"model '{NAME}': the vocabulary has no words; give the task's: preprocess.vocabulary"
        )
    if vectors is None:
        return
    if not named:
        raise RecipeError(
            f"model '{NAME}': vectors need the words that they are of; give vocabulary: the words in the order of their "
            f"ids (task.preprocess.vocabulary)"
        )
    if vectors.width != width:
        raise RecipeError(
            f"model '{NAME}': width {width}, and the vectors of {settings.vectors} have {vectors.width}; leave width out"
        )


def _fill(model: BiLSTM, named: Sequence[str], vectors: WordVectors, place: str | None) -> str:
    """Put the vectors into the tuned table, and say how many words have one."""
    rows, known = vectors.rows(named)
    found = int(known.sum())
    if not found:
        raise DataError(
            f"{vectors.source}: has none of the vocabulary's {len(named):,} words; are they of another language?"
        )
    model.tuned.weight[torch.from_numpy(known)] = torch.from_numpy(rows[known]).to(model.tuned.weight)
    share = found / len(named)
    return f"{found:,} of {len(named):,} words ({share:.1%}) have a vector in {place}; the others begin with random ones"
