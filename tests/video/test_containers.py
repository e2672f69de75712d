"""Video files in and out: whatever is not a pixel stays as it was."""

import shutil
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from video_files import TIMES, make_clip, packets_of, pictures, shown, sound_of, times_of

from perceptual.errors import InvalidOption
from perceptual.video.sinks import container as video_sink
from perceptual.video.sinks import part_of
from perceptual.video.sinks.container import CODECS_IN

pytestmark = pytest.mark.slow  # encodes and decodes clips


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    """A clip as phones make it: frames at irregular times, held upright."""
    return make_clip(tmp_path_factory.mktemp("phone") / "phone.mp4", rotation=90)


def test_times_sound_chapters_and_metadata_stay(convert, phone, tmp_path):
    report = convert(phone, tmp_path / "out.mp4")
    assert report.frames == len(TIMES) and not report.faults and not report.omitted
    assert times_of(tmp_path / "out.mp4") == times_of(phone) == [Fraction(time, 30) for time in TIMES]
    assert packets_of(tmp_path / "out.mp4") == packets_of(phone)
    (start, samples), (expected_start, expected) = sound_of(tmp_path / "out.mp4"), sound_of(phone)
    assert start == expected_start and np.array_equal(samples, expected)
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(phone)) as given:
        assert out.chapters() == given.chapters() and out.metadata["title"] == "Holiday"
        assert "comment" not in out.metadata and out.streams.audio[0].metadata["language"] == "deu"
        assert abs(out.duration - given.duration) <= av.time_base / 30
    assert not part_of(tmp_path / "out.mp4").exists()


def test_a_clip_that_was_held_upright_is_upright(convert, phone, tmp_path):
    convert(phone, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as out:
        frame = next(out.decode(video=0))
    assert (frame.width, frame.height, frame.rotation) == (48, 64, 0)
    red = shown(tmp_path / "out.mp4")[0][0].float()
    assert red[0].median() > 230 and red[-1].median() < 30  # the right end of the lines came to the top


@pytest.mark.parametrize(("name", "sound"), [("out.mkv", "aac"), ("out.webm", "libopus"), ("out.mov", "aac")])
def test_other_containers_keep_times_to_their_own_unit(convert, tmp_path, name, sound):
    source = make_clip(tmp_path / "in.mp4", sound=sound)
    convert(source, tmp_path / name)
    # Matroska has no times below 0, where AAC begins: all begins later there, sound and pictures alike.
    later = packets_of(tmp_path / name)[0][1] - packets_of(source)[0][1]
    assert times_of(tmp_path / name) == pytest.approx([time / 30 + later for time in TIMES], abs=0.0011)
    assert [content for content, _ in packets_of(tmp_path / name)] == [content for content, _ in packets_of(source)]
    assert later <= 0.022


def test_subtitles_are_copied_and_refused_where_they_do_not_fit(convert, tmp_path):
    text = tmp_path / "subtitles.srt"
    text.write_text("1\n00:00:00,100 --> 00:00:00,900\nHello\n\n2\n00:00:01,000 --> 00:00:01,400\nWorld\n")
    source = tmp_path / "in.mkv"
    plain = make_clip(tmp_path / "plain.mkv", sound="libopus")
    with av.open(str(plain)) as video, av.open(str(text)) as subtitles, av.open(str(source), "w") as made:
        streams = [made.add_stream_from_template(each) for each in (*video.streams, *subtitles.streams)]
        for given, kept in ((subtitles, streams[-1:]), (video, streams)):
            for packet in given.demux():
                if packet.size:
                    packet.stream = kept[packet.stream_index]
                    made.mux(packet)
    convert(source, tmp_path / "out.mkv")
    assert [content for content, _ in packets_of(tmp_path / "out.mkv", "subtitle")] == [b"Hello", b"World"]
    with pytest.raises(InvalidOption, match="cannot hold stream 2 of .*, subtitle .*name the result .mkv"):
        convert(source, tmp_path / "out.webm", codec="vp9")


def test_the_endings_are_named_that_hold_what_does_not_fit(convert, tmp_path):
    with av.open(str(tmp_path / "in.mp4"), "w") as made:
        video, text = made.add_stream("libx264", rate=30), made.add_mux_stream("mov_text", time_base=Fraction(1, 1000))
        (pixels,) = pictures(1)
        video.height, video.width = pixels.shape[:2]
        made.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        made.mux(video.encode(None))
        packet = av.Packet(b"\0\5Hello")
        packet.stream, packet.time_base, packet.pts, packet.dts = text, text.time_base, 0, 0
        made.mux(packet)
    with pytest.raises(InvalidOption, match=".mkv cannot hold .*mov_text.*: name the result .mp4, .m4v or .mov$"):
        convert(tmp_path / "in.mp4", tmp_path / "out.mkv")


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_the_sound_of_a_transport_stream_is_the_same(convert, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(video_sink, "KEY_FRAMES", 8)
    source, stop = make_clip(tmp_path / "in.ts", time_base=Fraction(1, 90_000)), threading.Event()
    convert(source, tmp_path / f"whole{ending}")
    convert(source, tmp_path / f"out{ending}", stop=stop, progress=lambda frames, total: frames == 19 and stop.set())
    convert(source, tmp_path / f"out{ending}", resume=True)
    for made in (tmp_path / f"whole{ending}", tmp_path / f"out{ending}"):
        assert times_of(made) == pytest.approx(times_of(source), abs=0.0011)
        (start, samples), (expected_start, expected) = sound_of(made), sound_of(source)
        assert start == pytest.approx(expected_start, abs=0.0011) and np.array_equal(samples, expected)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (61, 48), (64, 37), (33, 17)])
def test_any_size_comes_out_at_its_place(convert, tmp_path, width, height):
    frames = list(pictures(6, width, height))
    source = make_clip(
        tmp_path / "in.mkv", frames, times=range(6), codec="ffv1", pix_fmt="bgr0", sound=None, options={}
    )
    convert(source, tmp_path / "exact.mkv", codec="ffv1")
    assert all(
        torch.equal(out, torch.from_numpy(given).permute(2, 0, 1))
        for out, given in zip(shown(tmp_path / "exact.mkv"), frames, strict=True)
    )
    convert(source, tmp_path / "out.mp4", crf=1)
    (out, *_) = shown(tmp_path / "out.mp4")
    assert out.shape == (3, height + height % 2, width + width % 2)
    given = torch.from_numpy(frames[0]).permute(2, 0, 1)
    assert (out[:, :height, :width].float() - given.float()).abs().mean() < 4


BARS = [(255, 255, 255), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (9, 9, 9)]
WEIGHTS = {6: (0.299, 0.114), 1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}  # of red and blue, by matrix


def bars(matrix, full, pix_fmt):
    """A frame of colour bars, computed by the formulae of the recommendations."""
    rgb = np.repeat(np.repeat(np.array([BARS]) / 255, 64, 0), 32, 1)
    kr, kb = WEIGHTS[matrix]
    luma = rgb @ (kr, 1 - kr - kb, kb)
    chroma = (rgb[..., 2] - luma) / (2 - 2 * kb), (rgb[..., 0] - luma) / (2 - 2 * kr)
    scale, offset, spread = (255, 0, 255) if full else (219, 16, 224)
    ten_bits = "10" in pix_fmt
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt)
    planes = (offset + scale * luma, *(128 + spread * each for each in chroma))
    for plane, values in zip(frame.planes, planes, strict=True):
        values = values[:: 64 // plane.height, :: rgb.shape[1] // plane.width] * (4 if ten_bits else 1)
        lines = np.zeros((plane.height, plane.line_size // (2 if ten_bits else 1)), np.uint16 if ten_bits else np.uint8)
        lines[:, : plane.width] = np.rint(values)
        plane.update(lines)
    return frame


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p"])
@pytest.mark.parametrize(("matrix", "full"), [(6, False), (1, False), (1, True), (9, False)])
def test_colours_are_those_of_the_matrix_and_range(convert, tmp_path, matrix, full, pix_fmt):
    frames = [bars(matrix, full, pix_fmt) for _ in range(3)]
    with_tags = {"matrix": matrix, "full": full}
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        for index, frame in enumerate(frames):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    expected = torch.tensor(BARS).T[:, None]
    assert (shown(source)[0][:, 32, 16::32] - expected[:, 0]).abs().max() <= 1, with_tags
    convert(source, tmp_path / "out.mp4", crf=1)
    with av.open(str(tmp_path / "out.mp4")) as out:
        frame = next(out.decode(video=0))
    assert (frame.format.name, frame.colorspace, frame.color_range) in (
        ("yuv420p", matrix, 1 + full),
        ("yuvj420p", matrix, 1 + full),
    )
    assert (shown(tmp_path / "out.mp4")[0][:, 32, 16::32] - expected[:, 0]).abs().max() <= 3


def test_no_frame_is_lost_where_sound_is_the_first_stream(convert, tmp_path):
    source = make_clip(tmp_path / "in.mp4", sound_first=True)
    convert(source, tmp_path / "out.mp4")
    assert times_of(tmp_path / "out.mp4") == times_of(source) == [Fraction(time, 30) for time in TIMES]
    assert packets_of(tmp_path / "out.mp4") == packets_of(source)
    few = make_clip(tmp_path / "few.mp4", times=range(3), sound_first=True)
    assert convert(few, tmp_path / "few_out.mp4").frames == 3


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_a_time_code_stays(convert, tmp_path, ending):
    source = make_clip(tmp_path / "in.mov", timecode="01:00:00:00")
    convert(source, tmp_path / f"out{ending}")
    with av.open(str(tmp_path / f"out{ending}")) as out:
        assert out.streams.video[0].metadata["timecode"] == "01:00:00:00"


@pytest.mark.parametrize("sound_first", [False, True])
@pytest.mark.parametrize(
    ("ending", "codec"),
    [*((ending, CODECS_IN[ending][0]) for ending in (".mp4", ".m4v", ".mov", ".mkv", ".webm")), (".mkv", "hevc")],
)
def test_a_stopped_run_can_be_played_and_gone_on_with(convert, tmp_path, monkeypatch, ending, codec, sound_first):
    monkeypatch.setattr(video_sink, "KEY_FRAMES", 8)
    sound = "libopus" if ending == ".webm" else "aac"
    frames = list(pictures(len(TIMES), 96, 72))
    phone = make_clip(
        tmp_path / "phone.mp4", frames, rotation=90, sound=sound, sound_first=sound_first, timecode="01:00:00:00"
    )
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    convert(phone, whole, codec=codec)
    stop = threading.Event()

    def stop_at_19(frames, total):
        assert total == len(TIMES)
        if frames == 19:
            stop.set()

    report = convert(phone, out, progress=stop_at_19, stop=stop, codec=codec)
    assert report.stopped and report.path == part_of(out) and not out.exists()
    assert times_of(report.path) == times_of(whole)[:19]
    seen = []

    def watched(pictures):
        seen.extend(pictures)
        return list(pictures)

    report = convert(phone, out, transform=watched, resume=True, codec=codec)
    assert 8 < len(TIMES) - len(seen) < 19 and report.frames == len(TIMES)  # from the key frame before the 19th
    rounded = 0.0011 if ending in (".mkv", ".webm") else 0
    assert times_of(out) == pytest.approx(times_of(whole), abs=rounded)
    (contents, times), (expected, expected_times) = (zip(*packets_of(each), strict=True) for each in (out, whole))
    assert contents == expected and times == pytest.approx(expected_times, abs=rounded)
    for picture, expected in zip(shown(out), shown(whole), strict=True):
        assert (picture.float() - expected.float()).abs().mean() < 2
    assert [each.name for each in tmp_path.iterdir() if "part" in each.name] == []


def test_other_options_do_not_go_on_with_a_part(convert, phone, tmp_path):
    stop = threading.Event()
    report = convert(phone, tmp_path / "out.mp4", progress=lambda frames, total: stop.set(), stop=stop)
    assert report.stopped and report.frames == 1
    with pytest.raises(InvalidOption, match="with other options"):
        convert(phone, tmp_path / "out.mp4", resume=True, crf=30)


def test_what_does_not_fit_together_is_said(convert, phone, tmp_path):
    for name, options, sentence in (
        ("out.mp4", {"codec": "ffv1"}, "codec: .mp4 holds h264, hevc, av1, vp9, not ffv1"),
        ("out.avi", {}, "name the result .mp4"),
        ("out.mp4", {"crf": 60}, "crf: h264 takes 0 to 51"),
        ("out.gif", {"crf": 20}, "codec and crf are for videos, not for .gif"),
    ):
        with pytest.raises(InvalidOption, match=sentence):
            convert(phone, tmp_path / name, **options)
    with pytest.raises(InvalidOption, match="would overwrite the video"):
        convert(phone, phone)


def test_a_part_that_is_the_source_is_not_overwritten(convert, phone, tmp_path):
    source = Path(shutil.copy(phone, tmp_path / "out.part.mp4"))
    for resume in (False, True):
        with pytest.raises(InvalidOption, match="out.part.mp4 would overwrite the video"):
            convert(source, tmp_path / "out.mp4", resume=resume)
    assert source.read_bytes() == phone.read_bytes()
    (tmp_path / "link.part.mp4").symlink_to(source)
    with pytest.raises(InvalidOption, match="link.part.mp4 would overwrite the video"):
        convert(source, tmp_path / "link.mp4")


def test_a_part_that_cannot_be_read_is_begun_anew(convert, phone, tmp_path):
    (tmp_path / "out.part.mp4").write_bytes(b"")
    assert convert(phone, tmp_path / "out.mp4", resume=True).frames == len(TIMES)
