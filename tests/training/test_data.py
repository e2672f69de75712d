import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_fixtures import make_photos

from perceptual.errors import TrainingError
from perceptual.inference import images
from perceptual_training.data import (
    RandomCrops,
    batches,
    find_photos,
    fit_on,
    keeping,
    mean_size,
    plain_crops,
    read_photo,
    resized_crops,
    spread,
)

CPU = torch.device("cpu")


def test_a_transparent_photo_is_laid_on_white(tmp_path):
    Image.new("RGBA", (2, 3), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_photo(tmp_path / "clear.png").eq(255).all()


def test_photos_are_found_flat_and_nested_and_split_by_name(tmp_path):
    files = make_photos(tmp_path, 60, (8, 8))
    (tmp_path / "notes.txt").write_text("no image")
    splits = {split: find_photos(tmp_path, split) for split in ("train", "validation", "test")}
    assert sorted(file for split in splits.values() for file in split) == sorted(files)
    assert len(splits["train"]) > len(splits["validation"]) + len(splits["test"]) > 0
    files[0].unlink()  # others keep their split
    for split, before in splits.items():
        assert set(find_photos(tmp_path, split)) == set(before) - {files[0]}


def test_a_name_that_is_no_text_is_a_name(tmp_path):
    photo = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    Image.new("RGB", (8, 8)).save(photo)
    assert find_photos(tmp_path, "all") == [photo]


def test_a_missing_or_empty_folder_fails_at_once(tmp_path):
    with pytest.raises(TrainingError, match="there is no folder .*--content-dir"):
        find_photos(tmp_path / "missing", "train")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(TrainingError, match=r"looked for \.avif \.bmp"):
        find_photos(tmp_path, "train")
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    empty = [split for split in ("train", "validation", "test") if not in_split(tmp_path, split)]
    assert len(empty) == 2
    with pytest.raises(TrainingError, match=f"none of the 1 images .* is of the {empty[0]} split"):
        find_photos(tmp_path, empty[0])


def test_files_are_spread_over_the_whole_folder():
    files = [Path(f"{i:02}") for i in range(99)]
    places = [int(file.name) for file in spread(files, 50)]
    assert len(places) == 50 and places[0] == 0 and places[-1] == 97
    assert {after - before for before, after in pairwise(places)} == {1, 2}
    assert spread(files[:5], 5) == spread(files[:5], 9) == files[:5]


def in_split(folder, split):
    try:
        return find_photos(folder, split)
    except TrainingError:
        return []


def test_samples_depend_on_seed_and_position_alone(tmp_path):
    files = make_photos(tmp_path, 5)
    one, other = RandomCrops(files, resized_crops(32), seed=3), RandomCrops(files, resized_crops(32), seed=3)
    positions = [0, 7, 3, 12]
    torch.manual_seed(1)
    first = [one[i][0] for i in positions]
    torch.manual_seed(2)
    second = [other[i][0] for i in reversed(positions)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(second), strict=True))
    assert not torch.equal(first[0], RandomCrops(files, resized_crops(32), seed=4)[0][0])
    assert first[0].shape == (3, 32, 32) and first[0].dtype == torch.uint8


def test_photos_are_kept_once_they_are_decoded(tmp_path, monkeypatch):
    files = make_photos(tmp_path, 3)
    expected = [RandomCrops(files, resized_crops(16), seed=0)[i][0] for i in range(9)]
    decoded = []
    monkeypatch.setattr("perceptual_training.data.read_photo", lambda file: decoded.append(file) or read_photo(file))
    crops = RandomCrops(files, resized_crops(16), 0, keeping(torch.device("cpu")))
    assert all(torch.equal(crops[i][0], expected[i]) for i in range(9))
    assert sorted(decoded) == sorted(files)
    (tmp_path / "broken.png").write_bytes(b"junk")
    assert mean_size([*files, tmp_path / "broken.png"]) == 60 * 48 * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # of which twice as many are an error in Pillow
        assert mean_size(files) == 60 * 48 * 3
    assert not fit_on(torch.device("cpu"), files)


def test_photos_fit_by_the_size_that_they_have_decoded(tmp_path, monkeypatch):
    photo = Image.open(make_photos(tmp_path, 1)[0])
    pytest.importorskip("pillow_heif").from_pillow(photo).save(tmp_path / "phone.heic")
    (tmp_path / "broken.png").write_bytes(b"junk")
    kept, broken = [tmp_path / "phone.heic"], [tmp_path / "broken.png", tmp_path / "missing.png"]
    assert mean_size(kept) == mean_size(kept + broken) == 60 * 48 * 3
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    gpu = torch.device("cuda")
    free = 60 * 48 * 3 * 2
    assert not fit_on(gpu, kept)
    free += 1
    assert fit_on(gpu, kept)
    assert not fit_on(gpu, broken)  # of unknown size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_photos_are_kept_on_a_gpu(tmp_path):
    files, gpu = make_photos(tmp_path, 3), torch.device("cuda")
    assert fit_on(gpu, files)
    crops, bad = next(batches(RandomCrops(files, resized_crops(16), 0), 4, 0, 1, 2, gpu))
    assert crops.device.type == "cuda" and crops.shape == (4, 3, 16, 16) and not bad


def test_sampling_leaves_the_global_random_state_alone(tmp_path):
    crops = RandomCrops(make_photos(tmp_path, 2), resized_crops(16), seed=0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    crops[0], crops[1]
    assert torch.equal(torch.rand(3), expected)


def test_every_epoch_shows_every_photo_once_in_another_order(tmp_path):
    for shade in range(6):  # uniform photos, told by their value
        Image.new("RGB", (20, 20), (shade * 40,) * 3).save(tmp_path / f"{shade}.png")
    crops = RandomCrops(sorted(tmp_path.iterdir()), resized_crops(16), seed=0)
    epochs = [[int(crops[6 * epoch + i][0][0, 0, 0]) // 40 for i in range(6)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_unreadable_files_are_passed_over_and_reported(tmp_path):
    files = make_photos(tmp_path, 3)
    files[1].write_bytes(files[1].read_bytes()[:100])
    crops = RandomCrops(files, resized_crops(16), seed=0)
    bad = [bad for position in range(3) for bad in crops[position][1]]
    assert set(bad) == {files[1]}
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(TrainingError, match="none of the 3 image files can be used; the last is"):
        crops[0]


def test_plain_crops_are_parts_of_the_photo(tmp_path):
    file = make_photos(tmp_path, 1, (30, 24))[0]
    photo = images.decode(file.read_bytes()).rgb
    crops = RandomCrops([file], plain_crops(16), seed=0)
    windows = photo.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)
    for position in range(8):
        crop = crops[position][0]
        orientations = [each.flip(flips) for each in (crop, crop.mT) for flips in ([], [1], [2], [1, 2])]
        assert any((windows == each).all(dim=(2, 3, 4)).any() for each in orientations)
        assert torch.equal(crop, crops[position][0])
    assert len({crops[position][0].numpy().tobytes() for position in range(8)}) > 4


def test_photos_smaller_than_a_plain_crop_are_passed_over_and_reported(tmp_path):
    files = [*make_photos(tmp_path, 2, (40, 32)), tmp_path / "small.png"]
    Image.new("RGB", (40, 31)).save(files[2])
    crops = RandomCrops(files, plain_crops(32), seed=0)
    assert {bad for position in range(3) for bad in crops[position][1]} == {files[2]}
    with pytest.raises(TrainingError, match=r"none of the 3 .* can be used; .*: 40×3. pixels are too few for a crop"):
        RandomCrops(files, plain_crops(33), seed=0)[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_on_where_they_are_told(tmp_path, workers):
    crops = RandomCrops(make_photos(tmp_path, 5), resized_crops(16), seed=0)
    whole = [photos for photos, _ in batches(crops, 2, 0, 4, 0, CPU)]
    rest = [photos for photos, _ in batches(crops, 2, 2, 4, workers, CPU)]
    assert len(whole) == 4 and len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
    assert whole[0].shape == (2, 3, 16, 16) and whole[0].dtype == torch.float32
    assert whole[0].min() >= 0 and 0.5 < whole[0].max() <= 1


@pytest.mark.trains
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nosuch", "there is no folder nosuch; name a folder of photos with --content-dir"),
        ("empty", "no images in empty"),
    ],
)
def test_a_folder_without_photos_is_reported_as_such(
    run, tmp_path, monkeypatch, painting, loss_weights, folder, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    status, _, errors = run(
        *("train", "style", "--style-image", painting, "--content-dir", folder, "--loss-weights", loss_weights)
    )
    assert status == 1 and errors.startswith(f"perceptual: {message}") and errors.count("\n") == 1
