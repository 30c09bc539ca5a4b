"""A network without order: the state of a token is the mean of its embedding and those of the n-grams that end with it.

With the mean of all states and a linear layer on it, this is the classifier of Joulin et al., Bag of Tricks for
Efficient Text Classification, 2016 (arXiv 1607.01759). The hash is simple tabulation: the sum of a random number for
each token and place in the n-gram (Patrascu and Thorup, The Power of Simple Tabulation Hashing, 2012).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class BagConfig(PretrainedConfig):
    """The sizes of such a network."""

    model_type = "labelbeam_bag"

    def __init__(
        self, vocab_size: int = 1, hidden_size: int = 1, longest: int = 1, buckets: int = 1, **others: Any
    ) -> None:
        self.vocab_size = vocab_size  # number of token ids
        self.hidden_size = hidden_size  # numbers of an embedding
        self.longest = longest  # tokens of the longest n-grams; 1 for tokens alone
        self.buckets = buckets  # number of embeddings that all n-grams of two tokens and more share
        super().__init__(**others)


class BagModel(PreTrainedModel):
    """The embeddings of tokens and n-grams."""

    config_class = BagConfig

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.longest > 1:
            self.ngrams = nn.Embedding(config.buckets, config.hidden_size)
            chance = torch.Generator().manual_seed(0)
            hashes = torch.randint(config.buckets, (config.longest, config.vocab_size), generator=chance)
            self.register_buffer("hashes", hashes)  # of a token at each place, counted from the end of an n-gram
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:  # noqa: ARG002
        """Return states (documents, tokens, hidden_size) for token ids (documents, tokens).

        The mask is not needed, since padding follows the tokens and an n-gram looks back. Token id 0 stands before a
        text.
        """
        states = self.tokens(input_ids)
        if self.config.longest > 1:
            hashed = self.hashes[0][input_ids]
            for place in range(1, self.config.longest):
                earlier = functional.pad(input_ids, (place, 0))[:, : input_ids.shape[1]]
                hashed = hashed + self.hashes[place][earlier]
                states = states + self.ngrams(hashed % self.config.buckets)
        return BaseModelOutput(last_hidden_state=states / self.config.longest)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of tokens."""
        return self.tokens

    def _init_weights(self, module: nn.Module) -> None:
        """Draw embeddings small, so that the mean of many starts near 0."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


AutoConfig.register(BagConfig.model_type, BagConfig)
AutoModel.register(BagConfig, BagModel)
