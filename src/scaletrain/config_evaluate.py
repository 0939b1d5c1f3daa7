"""The settings of `scaletrain evaluate`: what is measured, on how many workers, and what the model is asked."""

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from scaletrain.config_section import Count, Section, Text

# Openings in ten languages; the last is one that a careful model may decline.
DEFAULT_PROMPTS = (
    "Hello! How are you today?",
    "What do you like to do at the weekend?",
    "Can you recommend a good film?",
    "你好，你今天过得怎么样？",
    "Hola, ¿qué tal ha ido el día?",
    "Quel est ton plat préféré, et pourquoi ?",
    "Was machst du gern am Wochenende?",
    "Привет! Какую книгу ты посоветуешь?",
    "こんにちは。今日は何をしましたか。",
    "مرحبا! كيف حالك اليوم؟",
    "नमस्ते! आप आज क्या कर रहे हैं?",
    "Olá! Você pode me contar uma piada?",
    "I had a terrible day at work.",
    "Can you tell me which medicine I should take for a headache?",
)


def _prompts_kind(value: object) -> str:
    return "<file>" if isinstance(value, str) else "<list>"


class EvaluateSection(Section):
    """What `scaletrain evaluate` measures."""

    micro_batch_size: Count = Field(4, description="packed rows at once")
    max_rows: Count | None = Field(None, description="validation rows to use; all by default")
    num_workers: Count | None = Field(
        None, description="to share the rows out to; by default the cluster's free GPUs, and without a cluster 1"
    )
    prompts: Annotated[
        Annotated[tuple[str, ...], Tag("<list>")] | Annotated[Text, Tag("<file>")], Discriminator(_prompts_kind)
    ] = Field(
        DEFAULT_PROMPTS,
        description="answered by each model, side by side: a list, or a file's URL (.txt: one a line; .jsonl: "
        '{"prompt": ...})',
    )
    max_new_tokens: Count = Field(60, description="the longest sample answer")
    texts: tuple[Text, ...] = Field(
        (), description="files of running text (.txt, or .jsonl with text in each row), of any length"
    )
    stride: Count | None = Field(
        None, description="tokens of a text that each window of data.seq_len adds; half of it by default"
    )
    judge_key: str = Field(
        "SCALETRAIN_JUDGE_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="the environment variable that holds the key for --judge-url; never the key itself",
    )
