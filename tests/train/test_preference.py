"""The loss of preference training against TRL's own, on the same pairs and models."""

from typing import Any

import numpy as np
import pytest
import torch

from scaletrain.config_dpo import DpoSection
from scaletrain.data.chat_template import Encoded
from scaletrain.data.conversation import Conversation, Turn
from scaletrain.data.pairs import encode_documents
from scaletrain.model.answer_log_probs import AnswerModel
from scaletrain.train.preference import pair_losses, pair_sums
from tiny import tiny_model, tiny_tokenizer

BETA = 0.3
PROMPTS = ("Hello! How are you?", "What do you like?", "Can you recommend a film? I like to walk.")
ANSWERS = (
    ("I am fine, thank you.", "No."),
    ("To read, and to cook.", "Nothing at all, thank you."),
    ("Yes!", "你好吗？"),
)


def encoded_pairs() -> list[Encoded]:
    pairs = [
        Conversation((Turn("user", prompt), Turn("assistant", chosen)), rejected=rejected)
        for prompt, (chosen, rejected) in zip(PROMPTS, ANSWERS, strict=True)
    ]
    found = encode_documents(pairs, tiny_tokenizer())
    assert all(isinstance(each, Encoded) for each in found)
    return [each for each in found if isinstance(each, Encoded)]


def packed(pairs: list[Encoded]) -> dict[str, torch.Tensor]:
    """All pairs in one row."""
    lengths = [length for each in pairs for length in np.diff([*each.turn_starts, len(each.input_ids)]).tolist()]
    ids = np.concatenate([each.input_ids for each in pairs])
    labels = np.where(np.concatenate([each.supervised for each in pairs]), ids, -100)
    arrays = {
        "input_ids": ids,
        "labels": labels,
        "positions": np.concatenate([np.arange(length) for length in lengths]),
        "documents": np.repeat(np.arange(1, len(lengths) + 1), lengths),
    }
    return {name: torch.from_numpy(array).long()[None] for name, array in arrays.items()}


def trl_rows(pairs: list[Encoded]) -> list[dict[str, Any]]:
    """The same tokens as TRL's collator takes them: the prompt once, and both answers."""
    rows = []
    for each in pairs:
        halves = [np.split(array, each.turn_starts[1:]) for array in (each.input_ids, each.supervised)]
        answers = [ids[mask].tolist() for ids, mask in zip(*halves, strict=True)]
        prompt = halves[0][0][: halves[1][0].argmax()].tolist()
        rows.append({"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]})
    return rows


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer of a policy that is not the reference, on a CPU in fp32."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, (chosen, rejected) in zip(PROMPTS, ANSWERS, strict=True)
    ]
    folder = tmp_path_factory.mktemp("trl")
    arguments = DPOConfig(output_dir=str(folder), beta=BETA, use_cpu=True, bf16=False, report_to="none")
    return DPOTrainer(
        model=tiny_model(seed=0),
        ref_model=tiny_model(seed=1),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )


def test_pairs_have_the_tokens_that_trl_gives_them(trainer: Any) -> None:
    """The same prompts and answers; TRL also learns the newline behind the mark that ends a turn."""
    for ours, theirs in zip(trl_rows(encoded_pairs()), trainer.train_dataset, strict=True):
        assert theirs["prompt_ids"] == ours["prompt_ids"]
        for name in ("chosen_ids", "rejected_ids"):
            assert theirs[name][: len(ours[name])] == ours[name]
            assert tiny_tokenizer().decode(theirs[name][len(ours[name]) :]) == "\n"


def test_loss_and_gradients_are_those_of_trl(trainer: Any) -> None:
    """Padded batches there, one packed row here: the same mean loss, and the same gradient of every weight."""
    pairs = encoded_pairs()
    trainer.model.zero_grad()
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(trl_rows(pairs)))
    theirs.backward()
    policy = tiny_model(seed=0)
    with torch.no_grad():
        reference = AnswerModel(tiny_model(seed=1))(**packed(pairs))
    loss_sum, margin_sum, right = pair_sums(AnswerModel(policy)(**packed(pairs)), reference, _section())
    ours = loss_sum / len(pairs)
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    expected = gradients(trainer.model)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for name, gradient in gradients(policy).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    metrics = trainer._metrics["eval"]
    assert margin_sum.item() / len(pairs) == pytest.approx(metrics["rewards/margins"][-1], abs=1e-4)
    assert right.item() / len(pairs) == pytest.approx(metrics["rewards/accuracies"][-1])


def test_pairs_apart_give_the_gradients_of_pairs_together() -> None:
    """The loss is a sum over pairs, so how they are dealt to rows and micro batches does not matter."""
    pairs, policy = encoded_pairs(), tiny_model(seed=0)
    found = []
    for rows in ([pairs], [[each] for each in pairs]):
        policy.zero_grad()
        sums = torch.zeros(3)
        for row in rows:
            with torch.no_grad():
                reference = AnswerModel(tiny_model(seed=1))(**packed(row))
            of_row = pair_sums(AnswerModel(policy)(**packed(row)), reference, _section())
            of_row[0].backward()
            sums += of_row.detach()
        found.append((sums, gradients(policy)))
    (together, all_gradients), (apart, summed_gradients) = found
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-5)
    for name, gradient in all_gradients.items():
        torch.testing.assert_close(summed_gradients[name], gradient, atol=1e-4, rtol=1e-4)


def test_smoothing_takes_a_share_of_the_pairs_the_wrong_way_round() -> None:
    """Conservative DPO: the loss is least where the model is as sure as the votes are."""
    margins = torch.linspace(-5, 5, 101).requires_grad_()
    losses = pair_losses(margins, label_smoothing=0.2)
    right, wrong = -torch.sigmoid(margins).log(), -torch.sigmoid(-margins).log()
    torch.testing.assert_close(losses, 0.8 * right + 0.2 * wrong)
    assert torch.sigmoid(margins[losses.argmin()]).item() == pytest.approx(0.8, abs=0.01)
    at_no_margin = pair_losses(torch.zeros(1), label_smoothing=0.0)
    assert at_no_margin.item() == pytest.approx(0.6931472)


def _section() -> DpoSection:
    return DpoSection(beta=BETA)  # type: ignore[call-arg]
