import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from codec_files import COLORS, jpeg, png_with, save
from PIL import Image

from perceptual.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from perceptual.inference.codecs import process
from perceptual.inference.codecs.decoding import decode
from perceptual.inference.codecs.limits import Limits
from perceptual.inference.codecs.process import Decoder

pytestmark = pytest.mark.slow  # starts decoders


@pytest.fixture(scope="module")
def decoder():
    decoder = Decoder()
    yield decoder
    decoder.end()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_gives_the_same_pixels_as_this_process(decoder, mode):
    data = save(Image.fromarray(COLORS).convert(mode), "PNG", dpi=(300, 300))
    there, here = decoder.decode(data, Limits()), decode(data, Limits())
    np.testing.assert_array_equal(there.rgb, here.rgb)
    assert (there.alpha is None) == (here.alpha is None)
    assert there.metadata == replace(here.metadata, profile=None)


def test_raises_the_same_errors(decoder):
    for data, limits in ((b"", Limits()), (b"%PDF-", Limits()), (png_with(), Limits(10)), (jpeg()[:200], Limits())):
        with pytest.raises((InvalidImage, UnsupportedFormat, ImageTooLarge)) as here:
            decode(data, limits)
        with pytest.raises(type(here.value)) as there:
            decoder.decode(data, limits)
        assert str(there.value) == str(here.value)


def decoder_that(monkeypatch, does):
    """A decoder in whose process a statement is run in place of decoding."""
    program = f"""
import os
from perceptual.inference.codecs import process
def decode(data, limits):
    {does}
process.decode, process.SECONDS = decode, 1
process.main()
"""
    popen = process.subprocess.Popen
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command, **options: popen([command[0], "-c", program], **options)
    )
    decoder = Decoder()
    monkeypatch.undo()
    return decoder


def test_a_picture_that_takes_too_long_ends_and_the_next_is_decoded(monkeypatch):
    decoder = decoder_that(monkeypatch, "10 ** 10 ** 9")  # one call, which no signal handler of Python's interrupts
    began = time.monotonic()
    with pytest.raises(ImageTooLarge, match=r"takes more than 10 s to decode"):
        decoder.decode(png_with(), Limits())
    assert time.monotonic() - began < 60  # two seconds of processor time
    np.testing.assert_array_equal(decoder.decode(png_with(), Limits()).rgb, COLORS)


def test_a_picture_that_crashes_its_decoder_is_refused_and_the_next_is_decoded(monkeypatch):
    decoder = decoder_that(monkeypatch, "os.kill(os.getpid(), 11)")
    with pytest.raises(InvalidImage, match="its decoder crashed"):
        decoder.decode(png_with(), Limits())
    np.testing.assert_array_equal(decoder.decode(png_with(), Limits()).rgb, COLORS)


def test_a_picture_that_takes_too_much_memory_is_refused(monkeypatch):
    decoder = decoder_that(monkeypatch, "bytearray(2 << 30)")
    with pytest.raises(ImageTooLarge, match="takes more memory than its pixels need"):
        decoder.decode(png_with(), Limits(pixels=1_000_000))


def test_a_fault_of_ours_is_told_as_such(monkeypatch):
    decoder = decoder_that(monkeypatch, "{}['missing']")
    with pytest.raises(RuntimeError, match="KeyError: 'missing'"):
        decoder.decode(png_with(), Limits())


def test_what_libraries_write_is_not_taken_for_a_reply(monkeypatch, capfd):
    decoder = decoder_that(monkeypatch, "os.write(1, b'x' * 100); os.write(2, b'y' * 100); raise MemoryError")
    with pytest.raises(ImageTooLarge):
        decoder.decode(png_with(), Limits())
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_with_its_decoder():
    decoder = Decoder()
    child = decoder.process.pid
    assert decoder.end() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, signal.SIGTERM)


def test_the_process_waits_for_no_torch():
    code = "import sys, perceptual.inference.codecs.process; print('torch' in sys.modules)"
    done = process.subprocess.run([process.sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
