import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from training_fixtures import PROGRAM

import perceptual
from perceptual.errors import InputError, InvalidOption, TrainingError, WeightsError
from perceptual.inference.metadata import read_metadata
from perceptual.inference.weights import load_network
from perceptual_training.loop import lr_factor
from perceptual_training.machine import cpu_name
from perceptual_training.style import StyleTransfer, train_style


def test_the_loss_falls(settings):
    task_settings = settings(iterations=60, lr=1e-2, log_step=1, save_step=60, sample_step=60)
    train_style(task_settings)
    totals = [
        float(line.split("total ")[1].split()[0])
        for line in (task_settings.sample_path / "train.log").read_text().splitlines()
        if "total " in line
    ]
    assert len(totals) == 60
    assert sum(totals[-10:]) < 0.5 * sum(totals[:10])


def test_a_run_leaves_weights_with_provenance_samples_log_and_animation(settings, small_samples):
    run = settings(sample_step=3)
    weights = train_style(run)
    assert weights == run.model_path
    network, metadata = load_network(weights)
    assert metadata["task"] == "style" and network.config["init_features"] == 4
    provenance = metadata["provenance"]
    assert provenance["name"] == "stripes" and provenance["iterations"] == 6
    assert len(provenance["style_image_sha256"]) == 64
    assert provenance["recipe"]["content_dir"] == "photos"  # not the whole path: weights are given to others
    assert provenance["recipe"]["lr"] == 1e-3
    versions = {"torch": torch.__version__, "torchserve-perceptual": perceptual.__version__}
    assert provenance["versions"].items() >= versions.items()
    assert set(provenance["losses"]) == {"content", "style", "total_variation"}
    with Image.open(run.sample_path / "evolution.gif") as animation:
        assert animation.n_frames == 2
    with Image.open(run.sample_path / "samples.png") as sheet:
        side = small_samples + 4
        assert sheet.size == (3 * side + 4, 2 * side + 4)  # content, style, output for two photos
    assert list(run.sample_path.glob("events.out.tfevents*"))
    log = (run.sample_path / "train.log").read_text()
    assert "6/6" in log and "images/s" in log and "left" in log


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize(("optimizer", "schedule"), [("muon", "cosine"), ("adam", "constant")])
def test_resuming_is_exact(settings, tmp_path, preset, optimizer, schedule):
    common = {"preset": preset, "optimizer": optimizer, "lr_schedule": schedule, "image_size": 48}
    straight = settings(**common, sample_path=tmp_path / "straight", model_path=tmp_path / "straight.safetensors")
    train_style(straight)

    # The first half stops as a user would stop it: by a signal, here raised by the log line of iteration 3.
    halves = settings(**common, sample_path=tmp_path / "halves", model_path=tmp_path / "halves.safetensors")
    assert stopped_after(3, halves) is None
    assert read_metadata(halves.model_path)["provenance"]["iterations"] == 3
    torch.manual_seed(99)  # the random state comes from the checkpoint
    train_style(halves, resume=True)

    one, two = (torch.load(run.sample_path / "checkpoint.pt", weights_only=True) for run in (straight, halves))
    assert one["iteration"] == two["iteration"] == 6
    for part in ("network", "optimizers", "random"):
        assert_equal(one[part], two[part])
    assert_equal(load_network(straight.model_path)[0].state_dict(), load_network(halves.model_path)[0].state_dict())


def test_what_was_begun_on_another_device_goes_on_as_if_here(settings):
    train_style(settings(iterations=3))
    folder = settings().sample_path
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    train_style(settings(iterations=5, log_step=5), resume=True)
    straight = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]

    # As a GPU leaves it: with Adam's fused implementation, which looks at memory only, and channels last.
    state["optimizers"][0]["param_groups"][0]["fused"] = True
    for moments in state["optimizers"][0]["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            if moments[name].dim() == 4:
                moments[name] = moments[name].to(memory_format=torch.channels_last)
    torch.save(state, folder / "checkpoint.pt")
    train_style(settings(iterations=5, log_step=5), resume=True)
    assert_equal(torch.load(folder / "checkpoint.pt", weights_only=True)["network"], straight)


def test_time_and_machines_add_up_over_all_runs(settings):
    run = settings()
    train_style(run)
    told = read_metadata(run.model_path)["provenance"]["training"]
    assert 0 < told["seconds"] < 60 and told["machine"] == f"{cpu_name()}, {torch.get_num_threads()} threads"

    file = run.sample_path / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "seconds": 1000.0, "machines": ("some GPU",)}, file)
    train_style(settings(iterations=60), resume=True)
    longer = read_metadata(run.model_path)["provenance"]["training"]
    assert 1000 < longer["seconds"] < 1060 and longer["machine"] == f"some GPU; {told['machine']}"


def test_a_budget_of_time_ends_in_a_checkpoint(settings):
    assert train_style(settings(iterations=10_000, minutes=0)) is None
    run = settings(minutes=5)
    file = run.sample_path / "checkpoint.pt"
    assert torch.load(file, weights_only=True)["iteration"] == 1  # one is always done, so that many runs get there
    assert "stopped after 1 of 10000 iterations; continue with --resume" in (run.sample_path / "train.log").read_text()
    assert read_metadata(run.model_path)["provenance"]["iterations"] == 1  # usable meanwhile
    assert not (run.sample_path / "samples.png").exists()  # a stop is quick; of many styles, a sheet takes minutes
    assert train_style(run, resume=True) == run.model_path
    assert "minutes" not in read_metadata(run.model_path)["provenance"]["recipe"]


SLOW = "this processor has no instructions for bfloat16; --precision float32 would be faster"


@pytest.mark.parametrize(
    ("flags", "precision", "used", "warned"),
    [
        ("fpu avx512_vnni", "auto", "float32", 0),
        ("fpu avx512_bf16", "auto", "bfloat16", 0),
        ("fpu amx_bf16", "auto", "bfloat16", 0),
        ("fpu avx512_bf16", "float32", "float32", 0),
        ("fpu avx512_bf16", "bfloat16", "bfloat16", 0),
        ("fpu avx512_vnni", "bfloat16", "bfloat16", 1),
    ],
)
def test_bfloat16_is_chosen_where_it_is_quick(settings, monkeypatch, flags, precision, used, warned):
    seen, losses = [], StyleTransfer.losses

    def seeing(self, photos):
        seen.append(torch.is_autocast_enabled("cpu"))
        return losses(self, photos)

    monkeypatch.setattr(StyleTransfer, "losses", seeing)
    monkeypatch.setattr("perceptual.inference.engines.cpu_flags", flags.split)
    run = settings(precision=precision, iterations=1)
    train_style(run)
    assert seen == [used == "bfloat16"]
    log = (run.sample_path / "train.log").read_text()
    assert f"photos, cpu, {used};" in log and log.count(SLOW) == warned


def stopped_after(iterations, settings):
    """Trains until a SIGTERM at an iteration."""
    count = 0

    class Counting(StyleTransfer):
        def losses(self, photos):
            nonlocal count
            count += 1
            if count == iterations:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().losses(photos)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perceptual_training.style.StyleTransfer", Counting)
        return train_style(settings)


def assert_equal(one, two):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, list):
        for first, second in zip(one, two, strict=True):
            assert_equal(first, second)
    else:
        assert one == two


def test_a_run_broken_off_at_its_very_end_is_finished_by_resuming(settings, monkeypatch):
    run = settings()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("perceptual_training.loop.animate", Mock(side_effect=KeyboardInterrupt))
        train_style(run)
    train_style(run, resume=True)
    assert (run.sample_path / "evolution.gif").exists()
    assert read_metadata(run.model_path)["provenance"]["iterations"] == 6


def test_a_second_run_does_not_overwrite_the_first(settings):
    run = settings()
    train_style(run)
    with pytest.raises(TrainingError, match="has a run already: continue it with --resume"):
        train_style(run)
    with pytest.raises(TrainingError, match="is finished, with 6 iterations"):
        train_style(run, resume=True)
    train_style(settings(iterations=7), resume=True)
    assert read_metadata(run.model_path)["provenance"]["iterations"] == 7


def test_weights_of_another_training_are_not_overwritten(settings, tmp_path):
    written = train_style(settings()).read_bytes()
    with pytest.raises(TrainingError, match=r"stripes\.safetensors exists already: choose another --name"):
        train_style(settings(sample_path=tmp_path / "another"))
    assert settings().model_path.read_bytes() == written


@pytest.mark.parametrize("where", [{"name": "n" * 232}, {"model_path": Path("n" * 231 + ".safetensors")}])
def test_a_name_too_long_for_a_temporary_file_is_refused_before_the_training(settings, where):
    with pytest.raises(InputError, match="choose another --name; 'n{40}'… is too long: at most 200 bytes"):
        train_style(settings(**where))
    assert not settings().sample_path.exists()


def test_weights_that_are_gone_are_written_again(settings):
    run = settings()
    train_style(run)
    written = run.model_path.read_bytes()
    run.model_path.unlink()
    assert train_style(run, resume=True) == run.model_path
    assert run.model_path.read_bytes() == written


def test_a_run_does_not_go_on_to_another_painting(settings, painting):
    run = settings()
    train_style(run)
    Image.open(painting).transpose(Image.Transpose.ROTATE_90).save(painting)
    with pytest.raises(TrainingError, match="was made with another file as the painting"):
        train_style(settings(iterations=7), resume=True)


def test_photos_that_have_come_are_told_of(settings, photos):
    run = settings()
    train_style(run)
    for number in range(20):  # of which some are of the split
        shutil.copy(photos / "a/001.png", photos / f"new{number}.png")
    train_style(settings(iterations=7), resume=True)
    assert re.search(
        r"there were \d+ photos before: from here on, their order is", (run.sample_path / "train.log").read_text()
    )


def test_a_training_can_begin_with_another_s_weights(settings, tmp_path):
    first = train_style(settings(iterations=5))
    folders = {"sample_path": tmp_path / "second", "model_path": tmp_path / "second.safetensors"}
    # At a learning rate of nothing, the second ends where it began.
    second = train_style(settings(iterations=1, lr=0, initial_weights=first, **folders))
    (one, _), (other, metadata) = load_network(first), load_network(second)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert metadata["provenance"]["recipe"]["initial_weights"] == first.name
    third = {"sample_path": tmp_path / "third", "model_path": tmp_path / "third.safetensors"}
    train_style(settings(iterations=2, lr=2e-3, initial_weights=second, **third))
    told = [read_metadata(file)["provenance"] for file in (first, second, third["model_path"])]
    assert "earlier_trainings" not in told[0] and told[2]["earlier_trainings"] == [
        {
            **{"name": "stripes", "iterations": iterations, "batch_size": 2, "optimizer": "muon", "lr": lr},
            **{"photos": 20, **one["training"]},
        }
        for one, iterations, lr in zip(told[:2], (5, 1), (1e-3, 0), strict=True)
    ]


def test_what_is_written_may_keep_a_share_of_the_initial_weights(settings, tmp_path):
    first = train_style(settings(iterations=2))

    def train_on(name, **changes):
        folders = {"sample_path": tmp_path / name, "model_path": tmp_path / f"{name}.safetensors"}
        return load_network(train_style(settings(iterations=3, initial_weights=first, **folders, **changes)))[0]

    begun = load_network(first)[0].state_dict()
    ended, mixed = train_on("whole").state_dict(), train_on("mixed", initial_share=0.25, save_step=1).state_dict()
    for key, value in mixed.items():
        torch.testing.assert_close(value, ended[key].lerp(begun[key], 0.25), rtol=1e-2, atol=1e-4)  # of float16
    assert any(not torch.equal(begun[key], ended[key]) for key in begun)
    other = tmp_path / "other.safetensors"
    train_style(settings(sample_path=tmp_path / "other", model_path=other, seed=1))
    with pytest.raises(TrainingError, match="was made with another file as the initial weights"):
        folders = {"sample_path": tmp_path / "mixed", "model_path": tmp_path / "mixed.safetensors"}
        train_style(settings(iterations=4, initial_weights=other, initial_share=0.25, **folders), resume=True)
    folders = {"sample_path": tmp_path / "whole", "model_path": tmp_path / "whole.safetensors"}
    train_style(settings(iterations=4, initial_weights=first, initial_share=0.5, **folders), resume=True)
    train_style(settings(iterations=5, initial_weights=first, **folders), resume=True)
    with pytest.raises(InvalidOption, match="initial-share: needs --initial-weights"):
        train_style(
            settings(initial_share=0.5, sample_path=tmp_path / "none", model_path=tmp_path / "none.safetensors")
        )


def test_initial_weights_of_other_layers_are_refused(settings, tmp_path):
    first = train_style(settings(iterations=1))
    folders = {"sample_path": tmp_path / "second", "model_path": tmp_path / "second.safetensors"}
    with pytest.raises(InvalidOption, match=r"initial-weights: .* is another network \(style .*this training's is"):
        train_style(settings(initial_weights=first, num_residuals=3, **folders))
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        train_style(settings(initial_weights=tmp_path / "none.safetensors", **folders))


def test_initial_weights_may_be_named_if_they_ship(settings, monkeypatch):
    first = train_style(settings(iterations=1))
    monkeypatch.setattr("perceptual.inference.metadata.shipped_weights", lambda: {"first": first})
    folders = {"sample_path": first.parent / "second", "model_path": first.parent / "second.safetensors"}
    second = train_style(settings(iterations=1, lr=0, initial_weights=Path("first"), **folders))
    assert_equal(load_network(first)[0].state_dict(), load_network(second)[0].state_dict())


def test_resuming_needs_a_checkpoint_and_the_same_settings(settings):
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_style(settings(), resume=True)
    train_style(settings())
    with pytest.raises(TrainingError, match=r"lr was 0\.001 and is now 0\.002; seed was 0 and is now 1"):
        train_style(settings(iterations=8, lr=2e-3, seed=1), resume=True)
    file = settings().sample_path / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "optimizers"}, file)
    with pytest.raises(TrainingError, match="is not a checkpoint of this version"):
        train_style(settings(), resume=True)
    (file.parent / "checkpoint_previous.pt").unlink()
    for content in (b"broken", b""):
        file.write_bytes(content)
        with pytest.raises(TrainingError, match="is damaged"):
            train_style(settings(), resume=True)


def test_a_checkpoint_from_before_a_setting_existed_resumes_at_its_default(settings):
    train_style(settings())
    file = settings().sample_path / "checkpoint.pt"
    state = torch.load(file, weights_only=True)
    del state["settings"]["style_size"], state["settings"]["reg_weight"]  # 384 and 1e5 by default
    torch.save(state, file)
    with pytest.raises(TrainingError, match="other settings: style-size was 384 and is now 32. Resume"):
        train_style(settings(iterations=7), resume=True)


def test_corrupt_photos_are_survived_counted_and_named(settings, photos):
    victims = [photos / "a" / "001.png", photos / "b/c" / "002.png", photos / "a" / "003.png", photos / "a" / "005.png"]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:50])
    run = settings(iterations=14)
    train_style(run)
    last = (run.sample_path / "train.log").read_text().splitlines()[-1]
    named = [str(victim) for victim in victims if str(victim) in last]
    assert named and last.startswith(f"{len(named)} image files were skipped: damaged, or too small for a crop: ")


def test_losses_that_explode_stop_the_run_with_the_last_checkpoint(settings, monkeypatch):
    original = StyleTransfer.losses
    calls = []

    def exploding(self, photos):
        losses, output = original(self, photos)
        calls.append(1)
        return {**losses, "content": losses["content"] * (float("nan") if len(calls) > 4 else 1)}, output

    monkeypatch.setattr(StyleTransfer, "losses", exploding)
    run = settings(log_step=1)
    with pytest.raises(TrainingError, match=r"no longer finite at iteration 5\. The last good checkpoint is .*run"):
        train_style(run)
    assert torch.load(run.sample_path / "checkpoint.pt", weights_only=True)["iteration"] == 3
    assert not run.model_path.exists()


def test_photos_of_one_colour_do_not_stop_the_run(settings, photos):
    for file in photos.rglob("*.png"):
        Image.new("RGB", (48, 40), "white").save(file)
    run = settings()
    assert train_style(run) == run.model_path


def test_an_output_of_one_colour_stops_the_run(settings, monkeypatch):
    original = StyleTransfer.losses
    monkeypatch.setattr(
        StyleTransfer, "losses", lambda self, photos: (original(self, photos)[0], torch.full_like(photos, 0.5))
    )
    with pytest.raises(TrainingError, match="of one colour at iteration 2. There is no good checkpoint yet"):
        train_style(settings())


def test_content_targets_need_no_graph_and_style_targets_are_computed_once(settings):
    task, graphs = StyleTransfer(settings(), torch.device("cpu")), []
    first = next(each for each in task.objective.loss_network.modules() if isinstance(each, torch.nn.Conv2d))
    first.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    for _ in range(2):
        task.losses(torch.rand(2, 3, 32, 32))
    assert graphs == [False, True] * 2  # the photos and the output, and not the painting again


def test_content_is_the_photo_s_and_style_the_painting_s_at_its_size(settings, painting, monkeypatch):
    task, photos = StyleTransfer(settings(style_size=64), torch.device("cpu")), torch.rand(2, 3, 32, 32)
    monkeypatch.setattr(task.network, "forward", lambda images: photos)
    assert task.losses(photos)[0]["content"] == 0
    own = torch.from_numpy(np.array(Image.open(painting))).movedim(2, 0)[None] / 255  # 64 pixels high: not resized

    def style(image):
        return task.objective.style_loss(task.objective.features(image)).item()

    assert style(own) < 1e-6 * style(1 - own)


def test_weights_are_one_for_all_layers_or_one_each(settings):
    task = StyleTransfer(settings(style_weights=[1, 2, 3, 4]), torch.device("cpu"))
    assert task.objective.style_loss.weights == {"relu1_2": 1, "relu2_2": 2, "relu3_3": 3, "relu4_3": 4}
    with pytest.raises(InvalidOption, match="style-weights: expected 1 or 4 numbers"):
        StyleTransfer(settings(style_weights=[1, 2]), torch.device("cpu"))


def test_plain_images_do_not_enter_the_statistics_of_batch_norms(settings):
    with pytest.raises(InvalidOption, match="grid-weight: the preset's norms"):
        StyleTransfer(settings(preset="paper", grid_weight=1), torch.device("cpu"))


def test_cosine_schedule_warms_up_and_ends_at_zero(settings):
    cosine = settings(lr_schedule="cosine", iterations=1000)
    assert lr_factor(0, cosine) == 1 / 50
    assert lr_factor(500, cosine) == pytest.approx(0.5)
    assert lr_factor(1000, cosine) == 0
    assert {lr_factor(done, settings()) for done in (0, 3, 6)} == {1.0}
    assert lr_factor(400, cosine, rising_from=400) == 1 / 50
    assert lr_factor(500, cosine, rising_from=400) == pytest.approx(0.5)


def test_a_prolonged_cosine_training_rises_anew(settings, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *args: rates.append(self.param_groups[0]["lr"]) or step(self, *args)
    )
    train_style(settings(lr_schedule="cosine"))
    longer = settings(lr_schedule="cosine", iterations=1000, minutes=0)
    assert train_style(longer, resume=True) is None
    assert rates[6:] == pytest.approx([1e-3 / 50])


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.release)])
def test_a_signal_to_the_whole_group_saves_a_checkpoint_first(number, photos, painting, loss_weights, tmp_path):
    arguments = f"""train style --content-dir {photos} --style-image {painting} --loss-weights {loss_weights}
        --init-features 4 --num-residuals 1 --image-size 32 --style-size 32 --batch-size 2 --iterations 100000
        --num-workers 1 --samples 1 --log-step 1 --sample-path {tmp_path}/run --model-path {tmp_path}/m.safetensors
        --device cpu"""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments.split()], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stderr:
        if line.startswith("3/"):
            os.killpg(process.pid, number)  # as Ctrl-C in a terminal does: to the data worker too
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    done = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["iteration"]
    assert f"stopped after {done} of 100000 iterations; continue with --resume. The current weights are in" in rest
    assert "Traceback" not in rest
