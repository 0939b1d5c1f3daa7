"""`scaletrain chat` and `scaletrain export`: talking to a model, and taking it along."""

from pathlib import Path
from typing import Annotated

import typer

from scaletrain.command import Root, RunName, examples, find_run_of, is_config_file, reported
from scaletrain.errors import ConfigError

app = typer.Typer()

_DTYPES = ("auto", "fp32", "bf16", "fp16", "q8_0")


@app.command(
    epilog=examples(
        "scaletrain export run.yaml my-model",
        "scaletrain export my-run my-model.gguf --dtype q8_0",
        "scaletrain export my-run hub:me/my-model --licence apache-2.0",
    )
)
@reported
def export(
    run: RunName,
    dest: Annotated[
        str,
        typer.Argument(metavar="DEST", help="a folder, any fsspec URL, hub:USER/NAME, or a file that ends in .gguf"),
    ],
    root: Root = "bucket",
    step: Annotated[int | None, typer.Option("--step", help="this checkpoint instead of the newest")] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="auto, fp32 or bf16; for .gguf also fp16 and q8_0 (8 bits a weight)")
    ] = "auto",
    adapter: Annotated[
        bool, typer.Option("--adapter", help="the adapter of a LoRA run alone, as PEFT has it, not merged")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="ID", help="of the model, for its card, as apache-2.0")
    ] = None,
    push_to: Annotated[
        str | None, typer.Option("--push-to", metavar="DEST", help="put the same there too, as hub:USER/NAME")
    ] = None,
) -> None:
    """Write a run's model as a Hugging Face folder or a GGUF file.

    A folder has safetensors, tokenizer and model card; LoRA is merged. A DEST that ends in .gguf is one file for
    llama.cpp instead (Llama models only). hub:USER/NAME is a repository of
    the Hugging Face hub, made private where it does not exist; the token is read from HF_TOKEN, or is that of
    `hf auth login`.
    """
    from scaletrain.model.export import Format, export_run
    from scaletrain.runs import check_exists

    if dtype not in _DTYPES:
        raise ConfigError(f"--dtype={dtype}: give one of {', '.join(_DTYPES)}")
    found = find_run_of(run, root)
    check_exists(found)
    form: Format = "adapter" if adapter else "gguf" if dest.endswith(".gguf") else "model"
    print(
        export_run(
            found,
            dest,
            form=form,
            step=step,
            dtype=dtype,  # type: ignore[arg-type]
            licence=licence,
            push_to=push_to,
        )
    )


@app.command(
    epilog=examples(
        "scaletrain chat run.yaml",
        "scaletrain chat HuggingFaceTB/SmolLM2-135M-Instruct --temperature 0 --prompt Hello",
        "scaletrain chat --url http://127.0.0.1:8000/v1",
    )
)
@reported
def chat(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="a run or its CONFIG, a folder, a GGUF file, a Hugging Face id ..."),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="... or an OpenAI API, as http://127.0.0.1:8000/v1")
    ] = None,
    served: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="which model of --url, where it has several")
    ] = None,
    root: Root = "bucket",
    prompt: Annotated[str | None, typer.Option("--prompt", help="answer this once and end")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="answer each conversation ({messages: [...]}) that stdin has, a line each")
    ] = False,
    system: Annotated[str | None, typer.Option("--system", help="the system prompt")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the most likely token")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="sample from the likeliest tokens of this mass")] = 0.95,
    top_k: Annotated[int, typer.Option("--top-k", help="sample from this many tokens; 0: all")] = 0,
    repetition_penalty: Annotated[float, typer.Option("--repetition-penalty", help="1: none")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="the longest answer")] = 512,
    seed: Annotated[int | None, typer.Option("--seed", help="the same answer every time")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="answers as they are, Markdown not rendered")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cuda or cpu")] = "auto",
) -> None:
    """Talk to a model in the terminal.

    /help there lists what can be changed on the way. `echo QUESTION | scaletrain chat MODEL` prints the answer and
    nothing else. With --url the model runs elsewhere; a key for it is read from SCALETRAIN_API_KEY.
    """
    from scaletrain.model.sampling import Sampling
    from scaletrain.serve.chat import Models
    from scaletrain.serve.chat import chat as start_chat
    from scaletrain.serve.chat_served import connect

    rules = {
        f"--device={device}: give auto, cuda or cpu": device in ("auto", "cuda", "cpu"),
        "name a MODEL to load, or the --url of an API, one of the two": (model is None) != (url is None),
        "--model goes with --url; a model to load is given without it": served is None or url is not None,
        "--prompt and --jsonl: give one of the two; --jsonl reads stdin": prompt is None or not jsonl,
    }
    if problems := [problem for problem, is_kept in rules.items() if not is_kept]:
        raise ConfigError(problems)
    sampling = Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    models = Models(lambda name: _folder_of(name, root), device=device)  # type: ignore[arg-type]
    talked_to = connect(url, served) if url is not None else models.local(str(model))
    start_chat(talked_to, models, sampling=sampling, system_prompt=system, prompt=prompt, jsonl=jsonl, plain=plain)


def _folder_of(name: str, root: str) -> Path:
    """The local Hugging Face folder that a user means."""
    from scaletrain.model.resolve import resolve_model
    from scaletrain.runs import check_exists

    if not is_config_file(name):
        return resolve_model(name, root=root)
    run = find_run_of(name, root)
    check_exists(run)
    return resolve_model(run.url, root=root)
