from dataclasses import replace

import torch

from perceptual.inference import images, large
from perceptual.inference.large import stylize_large
from perceptual.inference.predictor import load
from perceptual.options import CollectionOptions
from perceptual.worker.measure import Watch
from perceptual_handlers.collection import CollectionHandler


class Network:
    """Writes its name around pictures, and notes down which it was given at once."""

    def __init__(self, name, given):
        self.name, self.given = name, given

    def run(self, pictures, options, watch):
        self.given.append((self.name, pictures))
        return [f"{self.name}({picture})" for picture in pictures]

    stylize_pictures = upscale_pictures = run


class Named(str):
    """A picture that is a name."""

    rgb = torch.empty(3, 1, 1)


def test_each_network_is_given_all_that_ask_for_it_at_once():
    given = []
    handler = CollectionHandler()
    handler.styles = {name: Network(name, given) for name in ("dots", "lines", "unused")}
    handler.upscalers, handler.upscaler = {4: Network("x4", given)}, None
    wishes = [("dots", None), ("lines", 4), ("dots", 4), (None, 4), ("dots", None)]
    options = [CollectionOptions(style=style and ((style, 1.0),), scale=scale) for style, scale in wishes]
    results = handler.run([Named(each) for each in "abcde"], options, Watch())
    assert results == ["dots(a)", "x4(lines(b))", "x4(dots(c))", "x4(d)", "dots(e)"]
    assert given == [("dots", [*"ace"]), ("lines", ["b"]), ("x4", ["lines(b)", "dots(c)", "d"])]


def test_a_large_photo_is_painted_small_unless_a_size_is_asked_for(weights, upscaler, photo, monkeypatch):
    monkeypatch.setattr(large, "LARGE", 1000)
    monkeypatch.setattr(large, "PAINTED", 400)
    style, enlarging = load(weights, "cpu"), load(upscaler, "cpu")
    style.styles = ["tiny"]
    handler = CollectionHandler()
    handler.styles, handler.upscalers, handler.upscaler = {"tiny": style}, {}, lambda: enlarging
    picture = images.decode(photo)  # 64 × 48
    small = images.shrink(picture, 24)  # not large
    asked = CollectionOptions(style=(("tiny", 1.0),), keep_colors=True, tile=2048)
    sized = replace(asked, max_size=16384)
    results = handler.run([picture, small, picture], [asked, asked, sized], Watch())
    painted = stylize_large(style, enlarging, picture, asked)
    usual = style.stylize_pictures([small, picture], [asked, asked])
    assert all(torch.equal(found.rgb, each.rgb) for found, each in zip(results, [painted, *usual], strict=True))
    assert not torch.equal(results[0].rgb, results[2].rgb)
    assert [handler.runs_at_own_size(picture, each) for each in (asked, sized)] == [False, True]
    assert handler.runs_at_own_size(picture, replace(asked, scale=4))
