"""What the step benchmark trains: a size of model, on which documents, all of its weights or adapters."""

from dataclasses import dataclass

from scaletrain.config_model import LoraSection
from stepping.flops import SHAPES

_STEP_TOKENS = {"cuda": 65_536, "cpu": 4_096}
# About how many tokens at once fit 80 GB with all arms; each arm that does not fit halves it for itself.
_TOKENS_AT_ONCE = {"tiny": 2_048, "0.135B": 32_768, "1B": 32_768, "3B": 4_096, "8B": 8_192}
_CHECKPOINTED = 4  # times as many, where a layer keeps nothing but its input


@dataclass(frozen=True)
class Case:
    """One part of the report; the title tells it from the others.

    `gradient_checkpointing` is of all arms, `recomputing` what `model.gradient_checkpointing` is in ours alone.
    """

    size: str
    lengths: str = "chitchat"
    lora: bool = False
    gradient_checkpointing: bool = False
    recomputing: str = ""

    @property
    def title(self) -> str:
        said = [self.size, *(["LoRA"] if self.lora else [])]
        said += ["gradient checkpointing"] if self.gradient_checkpointing else []
        said += [f"ours recomputing {self.recomputing}"] if self.recomputing else []
        return ", ".join([*said, *(["long chats"] if self.lengths == "long" else [])])

    @property
    def adapters(self) -> LoraSection | None:
        """Rank 16 on all linear layers but the last, as scaletrain has it by default."""
        return LoraSection.model_validate({}) if self.lora else None

    @property
    def parameters(self) -> int:
        return SHAPES[self.size].parameters

    def rows(self, *, seq_len: int, device: str) -> int:
        """Packed rows of a step, unless somebody says otherwise."""
        return max(1, _STEP_TOKENS[device] // seq_len)

    def micro_rows(self, *, seq_len: int, device: str) -> int:
        """How many of them at once, to begin with."""
        tokens = _TOKENS_AT_ONCE[self.size] * (_CHECKPOINTED if self.gradient_checkpointing else 1)
        return min(max(1, tokens // seq_len), self.rows(seq_len=seq_len, device=device))


DEFAULTS = {
    "cuda": (
        Case("1B"),
        Case("1B", lengths="long"),
        Case("8B", lora=True),
        Case("3B", gradient_checkpointing=True),
        Case("0.135B"),
    ),
    "cpu": (Case("tiny"), Case("tiny", lengths="long", lora=True, gradient_checkpointing=True)),
}
