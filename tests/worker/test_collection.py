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


def test_each_network_is_given_all_that_ask_for_it_at_once():
    given = []
    handler = CollectionHandler()
    handler.styles = {name: Network(name, given) for name in ("dots", "lines", "unused")}
    handler.upscalers = {4: Network("x4", given)}
    wishes = [("dots", None), ("lines", 4), ("dots", 4), (None, 4), ("dots", None)]
    options = [CollectionOptions(style=style and ((style, 1.0),), scale=scale) for style, scale in wishes]
    results = handler.run([*"abcde"], options, Watch())
    assert results == ["dots(a)", "x4(lines(b))", "x4(dots(c))", "x4(d)", "dots(e)"]
    assert given == [("dots", [*"ace"]), ("lines", ["b"]), ("x4", ["lines(b)", "dots(c)", "d"])]
