"""The README of an exported model: how to use it, what it was made from and how, what was measured, and its limits.

Metadata and sections as the Hugging Face hub has them (https://huggingface.co/docs/hub/model-cards). Nothing is stated
that the bucket does not say; what nobody knows is said to be unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from scaletrain import __version__, yaml_text
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.config_model import quantizes
from scaletrain.errors import ModelError
from scaletrain.layout import RunLayout
from scaletrain.model.card_facts import DataFacts, Measured, data_facts, measured
from scaletrain.model.sources import locate
from scaletrain.storage.errors import without_password

CARD = "README.md"

Format = Literal["model", "adapter", "gguf"]

_TAG = "scaletrain"

_SECTIONS_SHOWN = {"model", "data", "train", "zero", "seed"}  # storage is the owner's business

# How a model with adapters is asked; its inputs go where it is, if that is not the CPU.
_ANSWER = """\
tokenizer = AutoTokenizer.from_pretrained("{place}")
prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello!"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)<there>
answer = model.generate(**prompt, max_new_tokens=200)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
```"""

_USE = {
    "model": """\
```python
from transformers import pipeline

chat = pipeline("text-generation", model="{place}")
answer = chat([{{"role": "user", "content": "Hello!"}}], max_new_tokens=200)
print(answer[0]["generated_text"][-1]["content"])
```""",
    "adapter": """\
This is a LoRA adapter: it needs its base model, {base}.

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{place}")
"""
    + _ANSWER.replace("<there>", ""),
    "adapter over 4 bits": """\
This is a LoRA adapter: it needs its base model, {base}, with the linear layers in 4 bits (NF4, double quantization), as
it was trained over them. Over the same model in whole weights it computes something else.

```python
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer, BitsAndBytesConfig

nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.{computing},
)
model = AutoPeftModelForCausalLM.from_pretrained("{place}", dtype="auto", quantization_config=nf4)
"""
    + _ANSWER.replace("<there>", ".to(model.device)"),
    "gguf": """\
```
llama-cli -m {place} -cnv
```""",
}

_LIMITS = """\
Made to chat about what the conversations above are about, in their languages. It says what is likely, which need not be
true, and it can repeat what is wrong, unfair or private in what people wrote. It was not tested for safety. Don't let
it decide about people, and let somebody who knows look at advice on health, law or money. Perplexity tells how well it
predicts held-out conversations, not whether its answers help: ask people (`scaletrain judge`) before you rely on it."""


def model_card(
    run: RunLayout,
    manifest: Manifest,
    config: Config,
    *,
    form: Format = "model",
    place: str | None = None,
    licence: str | None = None,
) -> str:
    """Return the README as Markdown with YAML metadata.

    `place` is what the example of its use loads, the run's name by default; `licence` the model's own, which follows
    from the licences of the base model and of the data, and which only its maker can state.
    """
    data, figures = data_facts(run, manifest), measured(run, manifest)
    kind = "adapter over 4 bits" if form == "adapter" and quantizes(config.model.lora) else form
    computing = "bfloat16" if manifest.precision == "bf16" else "float32"
    use = _USE[kind].format(place=place or run.name, base=_base(config), computing=computing)
    parts = [
        f"---\n{_metadata(run, config, data, figures, form=form, licence=licence)}\n---",
        f"# {run.name}",
        f"A chat model, made with scaletrain from {_base(config)}.",
        f"## Use\n\n{use}",
        *_data(config, data),
        f"## Training\n\n{_facts_table(_training_facts(run, manifest, config, data))}\n\n{_configuration(config)}",
        *_evaluation(figures),
        f"## Intended use and limits\n\n{_LIMITS}",
        f"## Licence\n\n{_licence(data, licence)}",
    ]
    return "\n\n".join(parts) + "\n"


def is_model_card(text: str) -> bool:
    """Whether a README is one of these: its metadata have our tag."""
    metadata = text.partition("\n---")[0]
    return text.startswith("---\n") and f"- {_TAG}" in [line.strip() for line in metadata.splitlines()]


def is_on_the_hub(source: str) -> bool:
    """Whether a model's source is an id of the Hugging Face hub."""
    try:
        return locate(source).kind == "hub"
    except ModelError:
        return False


def _metadata(
    run: RunLayout,
    config: Config,
    data: DataFacts | None,
    figures: Sequence[Measured],
    *,
    form: Format,
    licence: str | None,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    source = config.model.source
    base = source if source is not None and is_on_the_hub(source) else None
    relation = {"model": "finetune", "adapter": "adapter", "gguf": "finetune"}[form]
    is_repeated = len(figures) == 2 and figures[0].corpus == "all"  # of a single corpus
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out-conversations",
            dataset_name=f"held-out conversations: {each.corpus}",
            dataset_config=each.corpus,  # the hub's metadata would merge results of one dataset
            metric_type="perplexity",
            metric_value=round(each.value, 4),
        )
        for each in (figures[1:] if is_repeated else figures)
    ]
    card = ModelCardData(
        language=data.languages or None if data is not None else None,
        license=licence.lower() if licence is not None else None,
        library_name={"model": "transformers", "adapter": "peft", "gguf": None}[form],
        pipeline_tag="text-generation",
        base_model=base,
        base_model_relation=relation if base is not None else None,
        tags=[_TAG, "chat", *(["lora"] if form == "adapter" else []), *(["gguf"] if form == "gguf" else [])],
        metrics=["perplexity"] if results else None,
        eval_results=results or None,
        model_name=run.name if results else None,
    )
    text: str = card.to_yaml()
    return text


def _base(config: Config) -> str:
    if config.model.source is None:
        return "random weights"
    revision = f" at {config.model.revision}" if config.model.revision else ""
    return f"`{without_password(config.model.source)}`{revision}"


def _data(config: Config, data: DataFacts | None) -> list[str]:
    sources = {corpus.name or corpus.format: without_password(corpus.source) for corpus in config.data.corpora}
    if data is None:
        lines = [f"- {name} (`{source}`)" for name, source in sources.items()]
        return ["## Data\n\n" + "\n".join(lines)]
    rows = [
        (
            each.name,
            f"`{sources[each.name]}`" if each.name in sources else "",
            f"{each.conversations:,}",
            f"{each.tokens:,}",
            f"{each.supervised_tokens:,}",
            _counted(each.licences),
            _counted(each.languages),
        )
        for each in data.corpora
    ]
    header = ("corpus", "source", "conversations", "tokens", "learned from", "licence", "language")
    steps = ", ".join(_cleaning(config))
    return [
        f"## Data\n\n{_table(header, rows, numbers=(2, 3, 4))}\n\n"
        f"Conversations were cleaned ({steps or 'no step'}; duplicates: {config.data.duplicates}) and packed into "
        f"{data.rows:,} rows of {data.seq_len:,} tokens. Only what assistants say is learned from."
    ]


def _cleaning(config: Config) -> list[str]:
    """The names of the cleaning steps."""
    return [step if isinstance(step, str) else step.chosen()[0] for step in config.data.cleaning]


def _training_facts(run: RunLayout, manifest: Manifest, config: Config, data: DataFacts | None) -> dict[str, str]:
    train, lora = config.train, config.model.lora
    tokens = int(manifest.scalars.get("tokens", 0))
    supervised = int(manifest.scalars.get("supervised_tokens", 0))
    over = ", over a base in 4 bits (QLoRA: NF4, double quantization)" if quantizes(lora) else ""
    facts = {
        "run": run.name,
        "method": (f"LoRA of rank {lora.rank}" if lora else "all weights") + over,
        "steps": f"{manifest.step:,}",
        "packed rows seen": f"{manifest.samples_seen:,} of {config.data.seq_len:,} tokens",
        "tokens seen": f"{tokens:,}, {supervised:,} of them learned from",
        "global batch": f"{train.global_batch_size:,} packed rows",
        "learning rate": f"{train.learning_rate:g}, {train.schedule}, {train.warmup_steps:,} steps of warm-up",
        "precision": manifest.precision,
        "seed": str(config.seed),
        "dataset": f"`{data.dataset_id}`" if data is not None else f"`{manifest.dataset_url.rpartition('/')[2]}`",
        "checkpoint": f"`{manifest.manifest_hash}`",
        "ledger": f"`{manifest.ledger_hash}` (the hash of all samples of all steps, which `scaletrain verify` proves)",
        "made": f"{manifest.created}, scaletrain {__version__}",
    }
    if config.data.system_prompt is not None:
        facts["system prompt"] = config.data.system_prompt
    return facts


def _configuration(config: Config) -> str:
    text = yaml_text.dump(config.model_dump(mode="json", include=_SECTIONS_SHOWN))
    return (
        "<details><summary>Configuration</summary>\n\n```yaml\n"
        + without_password(text).strip()
        + "\n```\n\n</details>"
    )


def _evaluation(figures: Sequence[Measured]) -> list[str]:
    if not figures:
        return []
    rows = [
        (
            each.corpus,
            f"{each.before:.2f}" if each.before is not None else "not measured",
            f"{each.value:.2f}"
            + (f" ({each.interval[0]:.2f} to {each.interval[1]:.2f})" if each.interval is not None else ""),
            f"{each.bits_per_byte:.3f}" if each.bits_per_byte is not None else "not measured",
            f"{each.tokens:,}",
        )
        for each in figures
    ]
    header = ("corpus", "before", "after (95% interval)", "bits per byte", "tokens")
    table = _table(header, rows, numbers=(1, 2, 3, 4))
    return [f"## Perplexity on held-out conversations\n\n{table}"]


def _licence(data: DataFacts | None, licence: str | None) -> str:
    found = sorted({name for corpus in data.corpora for name in corpus.licences}) if data is not None else []
    of_data = f"The data is under: {', '.join(found)}. " if found else ""
    if licence is not None:
        return f"{licence}. {of_data}".strip()
    return f"{of_data}The model's own licence follows from these and from the base model's; nobody has stated it yet."


def _facts_table(facts: Mapping[str, str]) -> str:
    return _table(("", ""), list(facts.items()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    rule = ["---:" if place in right else "---" for place in range(len(header))]
    lines = [header, rule, *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _counted(counts: Mapping[str, int]) -> str:
    largest_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count:,})" if len(counts) > 1 else name for name, count in largest_first)
