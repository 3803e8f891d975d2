"""Transformers for texts: their tokens, the layers, and their ONNX nodes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM, BertModel
from transformers.utils import logging

from ..features.graph import Graph
from ..settings import TextNetworkSettings, UserError
from .tasks import Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INNER = 4  # the width inside a layer, in widths
OPSET = 17  # that the exporter is asked for
# Of a folder as Hugging Face's libraries write it
FILES = ("config.json", "model.safetensors", "tokenizer.json")
# As one matrix product after the other: what is fused for training has no ONNX nodes
PLAIN = {"attn_implementation": "eager"}


class TextNet(nn.Module):
    """A transformer, the mean of what its last layer says of the tokens, and a sum of that.

    Args:
        body: gives `last_hidden_state`.
        outputs: how many numbers come out.
    """

    def __init__(self, body: nn.Module, outputs: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(int(body.config.hidden_size), outputs)

    def forward(self, mask: Tensor, ids: Tensor) -> Tensor:
        """From where there are tokens, and tokens, int64, shape (n, tokens), to outputs, shape (n, outputs)."""
        # First, and so is `mask`: where layers are divided, no later share is sent an input of the network, and the
        # first share takes the inputs in the order in which they are used
        present = mask[..., None].to(torch.float32)
        hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.head((hidden * present).sum(1) / present.sum(1))


def exported(network: TextNet) -> onnx.ModelProto:
    """A network as ONNX nodes, from `ids` and `mask` to `outputs`. Not by several threads at once."""
    file, names = io.BytesIO(), ["mask", "ids"]
    sample = torch.ones((1, 8), dtype=torch.int64)
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that this exporter is an older one; it needs no library of its own
        torch.onnx.export(
            network, (sample, sample), file, dynamo=False, opset_version=OPSET, input_names=names,
            output_names=["outputs"], dynamic_axes={name: {0: "n", 1: "tokens"} for name in names},
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def to_nodes(graph: Graph, network: onnx.ModelProto, tokens: str) -> str:
    """Add the nodes of `exported` from tokens of one text, without padding, to the outputs, float32, (1, outputs)."""
    unit = numpy_helper.from_array(np.array([1]))
    mask = graph.add("ConstantOfShape", graph.add("Shape", tokens), value=unit)
    return graph.include(network, {"ids": tokens, "mask": mask}, "outputs")


class MaskedNet(nn.Module):
    """A transformer that says of each token which it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, mask: Tensor, ids: Tensor) -> Tensor:
        """From where there are tokens, and tokens, int64, shape (n, tokens), to how likely each token is, shape (n, tokens, vocabulary)."""
        return self.model(input_ids=ids, attention_mask=mask).logits


def new_tokenizer(texts: Iterable[str], vocabulary: int) -> str:
    """The content of a tokenizer.json of pieces of words, the commonest of n texts (WordPiece, as BERT's), small letters without accents.

    Args:
        vocabulary: pieces, at most.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return str(tokenizer.to_str())


def new_body(tokenizer: str, length: int, settings: TextNetworkSettings) -> BertModel:
    """A transformer that has learnt nothing yet, for texts of at most so many tokens."""
    return BertModel(_config(tokenizer, length, settings), add_pooling_layer=False)


def body_of(folder: str, length: int) -> Any:
    """The transformer of a folder as Hugging Face's libraries write it; no network is asked for it.

    Raises:
        UserError: when there is none, or it cannot read texts of so many tokens.
    """
    body = _read(AutoModel, folder)
    try:
        with torch.no_grad():
            body.eval()(input_ids=torch.ones((1, length), dtype=torch.int64))
    except (IndexError, RuntimeError):
        longest = body.config.max_position_embeddings
        raise UserError(f"{folder}: reads at most {longest} tokens; set length to less") from None
    return body


def masked_model(
    folder: str | None, tokenizer: str, length: int, settings: TextNetworkSettings
) -> Any:
    """A transformer that says which token stood where one is hidden: of a folder, or new."""
    if folder:
        return _read(AutoModelForMaskedLM, folder)
    return BertForMaskedLM(_config(tokenizer, length, settings))


def tokenizer_of(folder: str) -> str:
    """The content of a folder's tokenizer.json.

    Raises:
        UserError: when a file of the folder is not here.
    """
    for file in FILES:
        if not Path(folder, file).is_file():
            raise UserError(
                f"{Path(folder, file).as_posix()} is not here: a transformer's folder holds {', '.join(FILES)}; "
                f"`dvc pull {folder}` brings what `dvc add` keeps"
            )
    return Path(folder, FILES[-1]).read_text(encoding="utf-8")


def vocabulary_of(tokenizer: str) -> Vocabulary:
    """The tokens of a tokenizer.json by what they are for."""
    library = Tokenizer.from_str(tokenizer)
    added = library.get_added_tokens_decoder().items()
    special = {token.content: number for number, token in added if token.special}
    padding, hidden = (
        next((special[name] for name in names if name in special), None)
        for names in (("[PAD]", "<pad>"), ("[MASK]", "<mask>"))
    )
    no_pieces = tuple(sorted({padding or 0, *special.values()}))
    return Vocabulary(library.get_vocab_size(), padding or 0, hidden, no_pieces)


def _config(tokenizer: str, length: int, settings: TextNetworkSettings) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary_of(tokenizer).size,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=INNER * settings.width,
        max_position_embeddings=length,
        # Chance in the layers would differ between processes
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **PLAIN,
    )


def _read(kind: Any, folder: str) -> Any:
    try:
        with quiet():
            return kind.from_pretrained(folder, local_files_only=True, **PLAIN)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: holds no transformer that can be read: {reason}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's bars and its reports of layers that are not used."""
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
