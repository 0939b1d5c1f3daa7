"""How the next token is chosen: what a user can set, apart from what does it, so that it needs nothing heavy."""

from dataclasses import dataclass

from scaletrain.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; raises ConfigError for values that make no sense.

    temperature 0: always the most likely token. top_p: the smallest set of tokens that likely (Holtzman et al. 2020,
    arXiv:1904.09751); top_k: the k most likely, 0 for all; repetition_penalty: above 1, tokens already there are less
    likely (Keskar et al. 2019, arXiv:1909.05858); seed: the same answer each time, None for a new one.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        rules = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "top_k": (self.top_k >= 0, "0 (all tokens) or more"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0; 1 is none"),
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
        }
        problems = [f"{name}={getattr(self, name)}: use {rule}" for name, (good, rule) in rules.items() if not good]
        if problems:
            raise ConfigError(problems)
