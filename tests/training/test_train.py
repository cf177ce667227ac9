"""Training, localizing and evaluating one run, in one process, on tiny birds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from killed_training import train_until_killed
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from eil import backbones
from eil.core import records
from eil.core.files import InputError, read_arrays, read_json, write_arrays
from eil.core.metric_definitions import ScoreKey
from eil.core.run import Recipe, Run
from eil.data import cache, fingerprint
from eil.data.geometry import Frame
from eil.data.readers import birds
from eil.evaluation import boxes, evaluate, maps, protocols
from eil.execution import run_lock
from eil.study.study import parse
from eil.training import checkpoint, localize, map_sources, train, train_step

VAL_THRESHOLD = protocols.find("val-threshold")
EIL = "vgg_small-eil-gamma0.6-sigma1-seed0"


def test_same_seed_same_weights_other_seed_others(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    weights = []
    for k, name in enumerate((EIL, EIL, "vgg_small-eil-gamma0.6-sigma1-seed1")):
        train.train(runs[name], images, tmp_path / str(k))
        weights.append(load_file(tmp_path / str(k) / "weights.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.classifier.weight"], weights[2]["head.classifier.weight"])


def test_new_tensors_are_not_filled_and_never_read_before_they_are_written(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a tensor holds before it is written changes no weight: to fill it with NaN costs up to a tenth of a step."""
    train.train(runs[EIL], images, tmp_path / "fast")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    set_up = train_step.fabric_of

    def filling(recipe: Recipe, count: int = 1) -> Fabric:
        fabric = set_up(recipe, count)
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
        return fabric

    monkeypatch.setattr(train_step, "fabric_of", filling)
    train.train(runs[EIL], images, tmp_path / "filled")
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    fast, filled = (load_file(tmp_path / name / "weights.safetensors") for name in ("fast", "filled"))
    assert all(torch.equal(fast[name], filled[name]) for name in fast)


def test_a_killed_training_ends_in_the_same_weights(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs[EIL]
    train.train(run, images, tmp_path / "whole")
    train_until_killed(run, images, tmp_path / "killed", monkeypatch)
    assert (tmp_path / "killed" / "last.ckpt").exists()
    assert not (tmp_path / "killed" / "weights.safetensors").exists()
    train.train(run, images, tmp_path / "killed")
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    histories = [
        pd.read_csv(tmp_path / name / "history.csv")[["epoch", "lr", "total", "erased"]] for name in ("whole", "killed")
    ]
    pd.testing.assert_frame_equal(*histories)
    assert not (tmp_path / "killed" / "last.ckpt").exists()


def test_a_checkpoint_of_other_settings_is_not_used(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    model = train_step.build(runs[EIL], images)
    optimizer = torch.optim.SGD(train_step.parameter_groups(model, runs[EIL].recipe))
    other = runs["vgg_small-eil-gamma0.8-sigma1-seed0"]
    checkpoint.save(tmp_path, other, model, optimizer, checkpoint.State(epoch=1))
    assert checkpoint.resume(tmp_path, runs[EIL], model, optimizer).epoch == 0
    assert checkpoint.resume(tmp_path, other, model, optimizer).epoch == 1


def test_history_has_a_row_an_epoch_and_every_part(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    train.train(runs[EIL], images, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    measured = {"lr", "seconds", "images_per_s", "total", "unerased", "erased", "top1", "object_erased"}
    measured |= {"val_top1", "val_seconds"}
    assert measured < set(history)
    np.testing.assert_allclose(history["total"], history["unerased"] + history["erased"], rtol=1e-5)
    assert history["lr"].tolist() == pytest.approx([0.01, 0.001])


def test_val_accuracy_of_the_last_epoch_is_that_of_the_maps(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    train.train(runs[EIL], images, tmp_path)
    localize.localize(runs[EIL], images, tmp_path)
    logits, labels = read_arrays(tmp_path / "maps.npz")["val_logits"], cache.open_split(images, "val").labels
    expected = float((logits.argmax(axis=1) == labels).mean())
    assert pd.read_csv(tmp_path / "history.csv")["val_top1"].iloc[-1] == pytest.approx(expected)
    assert 0 < expected <= 1


def test_a_loss_that_is_no_number_stops_the_run_and_is_recorded(
    runs: dict[str, Run], images: Path, tmp_path: Path
) -> None:
    run = runs[EIL].model_copy(update={"recipe": runs[EIL].recipe.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(train.NotFinite, match=r"epoch 1, step [234]: total nan, unerased nan, erased"):  # noqa: SIM117
        with run_lock.run_step(run, tmp_path, "train"):
            train.train(run, images, tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()
    record = records.read(tmp_path / "failure.json")
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.startswith("NotFinite: the loss is not finite at epoch 1")


def test_plateau_stops_when_the_loss_has_not_fallen_for_long_enough() -> None:
    recipe = Recipe(epochs=50, stop="plateau", patience=2, min_delta=0.1)
    state = checkpoint.State(names=["total"])
    for total in (1.0, 0.8, 0.79, 0.78):
        assert not train._finished(state, recipe)
        train._close_epoch(state, [total], 10, 640, recipe, 1.0, {})
    assert train._finished(state, recipe)
    assert not train._finished(state, recipe.model_copy(update={"stop": "epochs"}))


def test_rates() -> None:
    stepped = Recipe(schedule="step", milestones=(2, 4), decay=0.1, epochs=6)
    assert [train_step.lr_factor(stepped, epoch) for epoch in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = Recipe(schedule="cosine", epochs=4, warmup=1)
    assert train_step.lr_factor(cosine, 0.5) == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi / 8)))
    assert train_step.lr_factor(cosine, 2) == pytest.approx(0.5)
    assert train_step.lr_factor(cosine, 4) == pytest.approx(0)


def test_weights_of_another_run_and_other_files_are_refused(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    model = train_step.build(runs[EIL], images)
    train.save_weights(tmp_path / "other", model, runs["vgg_small-eil-gamma0.8-sigma1-seed0"])
    (tmp_path / "pickle").write_bytes(b"\x80\x04not safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "unknown")
    for name, message in (
        ("other", "holds weights of run vgg_small-eil-gamma0.8-sigma1-seed0 with different settings"),
        ("unknown", "holds weights of run unknown"),
        ("pickle", "not a safetensors file"),
        ("none", "no such file; train the run first"),
    ):
        with pytest.raises(InputError, match=message):
            train.load_weights(tmp_path / name, model, runs[EIL])


@pytest.fixture
def trained(runs: dict[str, Run], images: Path, tmp_path: Path) -> Path:
    """A run's folder after train and localize."""
    train.train(runs[EIL], images, tmp_path)
    localize.localize(runs[EIL], images, tmp_path)
    return tmp_path


def test_maps_are_those_of_the_trained_weights(runs: dict[str, Run], images: Path, trained: Path) -> None:
    arrays = read_arrays(trained / "maps.npz")
    model = train_step.build(runs[EIL], images).eval()
    train.load_weights(trained / "weights.safetensors", model, runs[EIL])
    for split, count in (("val", 6), ("test", 8)):
        batches = train_step.batches(runs[EIL], images, split, model, torch.device("cpu"))
        with torch.inference_mode():
            found = [model.maps(b.images, b.labels) for b in batches.in_order()]
        assert len(arrays[f"{split}_maps"]) == count
        assert [arrays[f"cell_{what}"].tolist() for what in ("origin", "stride")] == [[1.5, 1.5], [4, 4]]
        np.testing.assert_allclose(arrays[f"{split}_logits"], torch.cat([f[0] for f in found]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(arrays[f"{split}_maps"], torch.cat([f[1] for f in found]), rtol=1e-4, atol=1e-5)
    assert {"extra_erased map", "extra_erased region"} < arrays.keys()


def test_a_record_says_what_the_maps_say(runs: dict[str, Run], images: Path, trained: Path) -> None:
    record = evaluate.evaluate(runs[EIL], images, trained)
    assert records.read(trained / "record.json") == record
    arrays, test = read_arrays(trained / "maps.npz"), cache.open_split(images, "test")
    level = int(record.value(ScoreKey("threshold")) or 0)
    hits = []
    for score_map, true in zip(arrays["test_maps"], test.boxes, strict=True):
        candidates, areas = boxes.boxes_at(maps.to_8_bit(score_map, 32, VAL_THRESHOLD), level)
        hits.append(boxes.iou(candidates[[areas.argmax()]], true).max() >= 0.5)
    assert record.value(ScoreKey("gt_known_loc")) == pytest.approx(100 * np.mean(hits))
    assert record.curves["gt_known_loc"][level] == pytest.approx(100 * np.mean(hits))
    assert record.value(ScoreKey("top1_cls")) == pytest.approx(
        100 * (arrays["test_logits"].argmax(axis=1) == test.labels).mean()
    )
    assert record.provenance["data_sha256"] == fingerprint.of_data(*cache.fingerprints(images))
    assert {"head", "body"} < set(record.subsets("part_coverage"))
    curves = read_arrays(trained / "curves.npz")
    assert curves["test_curve"].shape == curves["test_curve_v2"].shape == (8, 255)


def test_maps_scored_meanwhile_are_not_scored_again(
    runs: dict[str, Run], images: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = evaluate.evaluate(runs[EIL], images, trained)
    kept, maps = (read_arrays(trained / name) for name in ("curves.npz", "maps.npz"))
    (trained / "curves.npz").unlink()
    localize.localize(runs[EIL], images, trained, "val-threshold", score_maps=True)
    again = read_arrays(trained / "curves.npz")
    assert kept.keys() == again.keys()
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    counted: list[int] = []
    iou_curves = boxes.iou_curves
    monkeypatch.setattr(boxes, "iou_curves", lambda *given: (counted.append(1), iou_curves(*given))[1])
    assert evaluate.evaluate(runs[EIL], images, trained).scores == record.scores
    assert not counted
    # Another protocol's contours, and other maps, are scored anew.
    evaluate.evaluate(runs[EIL], images, trained, ["wsoleval-v1"])
    assert counted
    # So are those whose curves are damaged.
    (trained / "curves.npz").write_bytes(b"PK cut")
    assert evaluate.evaluate(runs[EIL], images, trained).scores == record.scores
    counted.clear()
    write_arrays(trained / "maps.npz", maps | {"test_maps": maps["test_maps"] ** 2})
    evaluate.evaluate(runs[EIL], images, trained, ["wsoleval-v1"])
    assert counted


def test_a_map_with_nan_is_named(runs: dict[str, Run], images: Path, trained: Path) -> None:
    arrays = read_arrays(trained / "maps.npz")
    arrays["test_maps"][3, 0, 0] = np.nan
    write_arrays(trained / "maps.npz", arrays)
    with pytest.raises(InputError, match="image test/00/0003: a score map holds NaN"):
        evaluate.evaluate(runs[EIL], images, trained)


def test_maps_of_another_data_set_are_refused(runs: dict[str, Run], images: Path, trained: Path) -> None:
    arrays = read_arrays(trained / "maps.npz")
    write_arrays(trained / "maps.npz", arrays | {"test_maps": arrays["test_maps"][:5]})
    with pytest.raises(InputError, match="5 maps for 8 images"):
        evaluate.evaluate(runs[EIL], images, trained)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_both_precisions_train(runs: dict[str, Run], images: Path, tmp_path: Path, precision: str) -> None:
    recipe = runs[EIL].recipe.model_copy(update={"precision": precision, "clip_norm": 1.0, "channels_last": False})
    train.train(runs[EIL].model_copy(update={"recipe": recipe}), images, tmp_path)
    assert load_file(tmp_path / "weights.safetensors")["head.classifier.weight"].dtype == torch.float32


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_convolutions_run_in_the_recipes_precision(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: Any
) -> None:
    run = runs[EIL].model_copy(update={"recipe": runs[EIL].recipe.model_copy(update={"precision": precision})})
    seen: set[torch.dtype] = set()
    build = train_step.build

    def watched(*arguments: Any) -> Any:
        model = build(*arguments)
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
        return model

    monkeypatch.setattr(train_step, "build", watched)
    monkeypatch.setattr(train, "warn_if_bf16_slow", lambda *_: None)  # it measures fp32 too
    # This runs a copy of the network, always in fp32.
    monkeypatch.setattr(map_sources, "locate_cells", lambda runs, *_: {run.name: None})
    train.train(run, images, tmp_path / run.name)
    assert seen == {dtype}
    seen.clear()
    localize.localize(run, images, tmp_path / run.name)
    assert seen == {dtype}


def test_ten_crops_classify_by_their_mean_softmax(content: dict[str, Any], tmp_path: Path) -> None:
    content["recipe"] |= {"crops": 10, "geometry": "center-crop"}
    content |= {"methods": ["cam"], "seeds": 1}
    study = parse(content, "s")
    (run,) = study.runs()
    settings = study.dataset.settings
    cache.build(birds.read(**settings), tmp_path / "data", Frame(36, 32, "center-crop", 10))
    train.train(run, tmp_path / "data", tmp_path / run.name)
    localize.localize(run, tmp_path / "data", tmp_path / run.name)
    found = read_arrays(tmp_path / run.name / "maps.npz")["test_logits"]
    model = train_step.build(run, tmp_path / "data")
    train.load_weights(tmp_path / run.name / "weights.safetensors", model, run)
    model.eval()
    split = cache.open_split(tmp_path / "data", "test")
    assert split.large is not None
    info = model.backbone.info
    for k, image in enumerate(np.asarray(split.large)):
        total = torch.zeros(2)
        for top, left in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
            crop = torch.from_numpy(image[top : top + 32, left : left + 32].copy()).permute(2, 0, 1) / 255
            x = (crop - torch.tensor(info.mean)[:, None, None]) / torch.tensor(info.std)[:, None, None]
            for each in (x, x.flip(2)):
                with torch.no_grad():
                    total += model.maps(each[None], torch.zeros(1, dtype=torch.int64))[0][0].softmax(0)
        np.testing.assert_allclose(np.exp(found[k]), total / 10, atol=1e-5)
    # The one image that is localized is the middle of the larger one.
    np.testing.assert_array_equal(split.images[0], split.large[0][2:34, 2:34])
    record = evaluate.evaluate(run, tmp_path / "data", tmp_path / run.name)
    assert record.run.recipe.crops == 10


def test_the_pretrained_weights_hash_is_kept(content: dict[str, Any], tmp_path: Path) -> None:
    content |= {"methods": ["cam"], "seeds": 1, "backbones": {"efficientnet_lite0": {"pretrained": True}}}
    content["recipe"] |= {"epochs": 1, "resize": 36, "crop": 32}
    (run,) = parse(content, "s").runs()
    cache.build(birds.read(**parse(content, "s").dataset.settings), tmp_path / "data", Frame(36, 32))
    train.train(run, tmp_path / "data", tmp_path / run.name)
    fresh = backbones.build("efficientnet_lite0", pretrained=True)
    assert read_json(tmp_path / run.name / "train.json")["pretrained_sha256"] == backbones.fingerprint(fresh)


def test_compiled_training_gives_the_eager_weights_or_says_why_not(
    runs: dict[str, Run],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    eager = runs[EIL]
    compiled = eager.model_copy(update={"recipe": eager.recipe.model_copy(update={"compile": True})})

    def refused(*_: object, **__: object) -> object:
        raise RuntimeError("no compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda loss, **_: refused)
    train.train(eager, images, tmp_path / "eager")
    train.train(compiled, images, tmp_path / "fallen back")
    assert "torch.compile failed, continuing without it: no compiler found" in caplog.text
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("eager", "fallen back"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    used: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda loss, **_: lambda *given: (used.append("compiled"), loss(*given))[1])
    train.train(compiled, images, tmp_path / "compiled")
    assert len(used) == 2 * 4  # every step of both epochs
    two = load_file(tmp_path / "compiled" / "weights.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
