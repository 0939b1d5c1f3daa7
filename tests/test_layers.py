"""layers: imports go to a lower layer or the same one, four packages stay apart, and heavy packages wait."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"

# A package's layer holds for all of its modules. A new module or package needs its line here.
LAYERS = {
    "scaletrain": 0,
    "scaletrain.errors": 0,
    "scaletrain.log": 0,
    "scaletrain.scratch": 0,
    "scaletrain.config": 1,
    "scaletrain.config_annotations": 1,
    "scaletrain.config_budget": 1,
    "scaletrain.config_cleaning": 1,
    "scaletrain.config_data": 1,
    "scaletrain.config_dpo": 1,
    "scaletrain.config_evaluate": 1,
    "scaletrain.config_file": 1,
    "scaletrain.config_model": 1,
    "scaletrain.config_problems": 1,
    "scaletrain.config_recomputing": 1,
    "scaletrain.config_scaling": 1,
    "scaletrain.config_section": 1,
    "scaletrain.config_serve": 1,
    "scaletrain.config_sweep": 1,
    "scaletrain.config_track": 1,
    "scaletrain.container_limits": 1,
    "scaletrain.event_stream": 1,
    "scaletrain.layout": 1,
    "scaletrain.listening": 1,
    "scaletrain.metric_columns": 1,
    "scaletrain.metrics": 1,
    "scaletrain.page": 1,
    "scaletrain.policy": 1,
    "scaletrain.stop_request": 1,
    "scaletrain.storage": 1,
    "scaletrain.template_dates": 1,
    "scaletrain.terminal_table": 1,
    "scaletrain.wilson": 1,
    "scaletrain.yaml_text": 1,
    "scaletrain.attempts": 2,
    "scaletrain.checkpoint": 2,
    "scaletrain.cost": 2,
    "scaletrain.data": 2,
    "scaletrain.devices": 2,
    "scaletrain.doctor": 2,
    "scaletrain.emulator": 2,
    "scaletrain.goodput": 2,
    "scaletrain.machine_types": 2,
    "scaletrain.metadata_service": 2,
    "scaletrain.model": 2,
    "scaletrain.notices": 2,
    "scaletrain.price_table": 2,
    "scaletrain.prices": 2,
    "scaletrain.ray_autoscaler": 2,
    "scaletrain.ray_cluster": 2,
    "scaletrain.ray_waiting": 2,
    "scaletrain.run_inputs": 2,
    "scaletrain.this_machine": 2,
    "scaletrain.track": 2,
    "scaletrain.evaluate": 3,
    "scaletrain.judge": 3,
    "scaletrain.plan": 3,
    "scaletrain.serve": 3,
    "scaletrain.train": 3,
    "scaletrain.cluster": 4,
    "scaletrain.plan.score": 4,
    "scaletrain.price_refresh": 4,
    "scaletrain.replay": 4,
    "scaletrain.report": 4,
    "scaletrain.run_copy": 4,
    "scaletrain.run_display": 4,
    "scaletrain.run_filter": 4,
    "scaletrain.run_history": 4,
    "scaletrain.run_summary": 4,
    "scaletrain.runs": 4,
    "scaletrain.simulate": 4,
    "scaletrain.sweep": 4,
    "scaletrain.verify": 4,
    "scaletrain.__main__": 5,
    "scaletrain.cli": 5,
    "scaletrain.cli_cluster": 5,
    "scaletrain.cli_data": 5,
    "scaletrain.cli_evaluate": 5,
    "scaletrain.cli_jobs": 5,
    "scaletrain.cli_judge": 5,
    "scaletrain.cli_judge_votes": 5,
    "scaletrain.cli_models": 5,
    "scaletrain.cli_plan": 5,
    "scaletrain.cli_prices": 5,
    "scaletrain.cli_report": 5,
    "scaletrain.cli_runs": 5,
    "scaletrain.cli_serve": 5,
    "scaletrain.cli_simulate": 5,
    "scaletrain.cli_sweep": 5,
    "scaletrain.command": 5,
    "scaletrain.job_entry": 5,
}
APART = ("scaletrain.evaluate", "scaletrain.judge", "scaletrain.serve", "scaletrain.train")
HEAVY = (
    "bitsandbytes",
    "boto3",
    "deepspeed",
    "google.cloud",
    "mlflow",
    "optuna",
    "pyarrow",
    "ray",
    "sqlalchemy",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
    "wandb",
)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name."""
    found = {}
    for path in sorted((SOURCES / "scaletrain").rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def statements(tree: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """Every statement below a node; with `at_import` only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from statements(node, at_import=at_import)


def imports(module: str, *, at_import: bool = False) -> set[str]:
    """The names that a module imports, as `scaletrain.storage` for `from scaletrain import storage`."""
    names = set()
    for node in statements(modules()[module], at_import=at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import; name the whole module"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name for name in members if name in modules()} | {str(node.module)}
    return names


def owner(name: str) -> str | None:
    """The longest entry of LAYERS that a name belongs to; the package itself owns only its own file."""
    while name not in LAYERS and "." in name:
        name = name.rpartition(".")[0]
    return name if name in LAYERS else None


def test_every_module_has_its_layer() -> None:
    """A new module is put into a layer by whoever writes it, and an entry goes with its module."""
    unknown = [name for name in modules() if name != "scaletrain" and owner(name) in (None, "scaletrain")]
    assert unknown == [], "give each its line in LAYERS"
    gone = [name for name in LAYERS if name not in modules() and name != "scaletrain.__main__"]
    assert gone == [], "remove these from LAYERS"


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down(module: str) -> None:
    """A module imports from its own layer and those below, inside functions too."""
    layer = LAYERS[str(owner(module))]
    upward = [name for name in imports(module) if (above := owner(name)) and LAYERS[above] > layer]
    assert upward == []


@pytest.mark.parametrize("package", APART)
def test_train_evaluate_judge_and_serve_do_not_import_one_another(package: str) -> None:
    """They meet in the command line only."""
    others = {
        (module, name)
        for module in modules()
        if owner(module) == package
        for name in imports(module)
        if owner(name) in APART and owner(name) != package
    }
    assert others == set()


def reachable_at_import(module: str) -> set[str]:
    """Our modules that are imported when `module` is imported, itself and the packages above it too."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name not in modules():
            continue
        found.add(name)
        waiting += imports(name, at_import=True)
        waiting.append(name.rpartition(".")[0])
    return found


@pytest.mark.parametrize("module", sorted(reachable_at_import("scaletrain.cli")))
def test_what_the_command_line_imports_at_start_is_light(module: str) -> None:
    """No module that `scaletrain --help` touches imports a heavy package at its top."""
    heavy = [
        name for name in imports(module, at_import=True) if f"{name}.".startswith(tuple(f"{each}." for each in HEAVY))
    ]
    assert heavy == []


@pytest.mark.parametrize("arguments", ["--help", "config --help", "train --help"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    """In a real process too, with everything that is imported indirectly."""
    program = (
        "import sys; sys.argv = ['scaletrain', *sys.argv[1:]]\n"
        "from scaletrain.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    command = [sys.executable, "-c", program, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_reader_of_imports_sees_what_it_should() -> None:
    """Imports inside functions count for the layers, and only those at the top for the start."""
    assert "scaletrain.config_file" in imports("scaletrain.cli")
    assert "scaletrain.config_file" not in imports("scaletrain.cli", at_import=True)
    assert "scaletrain.errors" in imports("scaletrain.cli", at_import=True)
    assert "scaletrain.storage" in imports("scaletrain.layout", at_import=True)
