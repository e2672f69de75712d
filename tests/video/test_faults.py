"""Files as they should not be: one sentence each, and what was finished can be played."""

import os
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from video_files import make_clip, packets_of, pictures, shown, sound_of, sound_packets, times_of

from perceptual.errors import InvalidVideo
from perceptual.video.sinks import container

pytestmark = pytest.mark.slow  # encodes and decodes clips


def noisy(frames):
    """Frames that take many bytes."""
    noise = np.random.default_rng(0)
    return [frame // 2 + noise.integers(0, 100, frame.shape, np.uint8) for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Four seconds without B-frames, so that packets are in the order of frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_clip(path, noisy(pictures(120)), times=range(120), options={"g": "12", "bf": "0"})


def test_a_file_without_its_end_is_converted_as_far_as_it_goes(convert, clip, tmp_path):
    whole = tmp_path / "whole.mkv"
    with av.open(str(clip)) as given, av.open(str(whole), "w") as made:
        streams = {each.index: made.add_stream_from_template(each) for each in given.streams if each.type != "data"}
        for packet in given.demux(*(given.streams[index] for index in streams)):
            if packet.size:
                packet.stream = streams[packet.stream_index]
                made.mux(packet)
    (tmp_path / "short.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    report = convert(tmp_path / "short.mkv", tmp_path / "out.mp4")
    (fault,) = report.faults
    assert "short.mkv: truncated, it ends after" in fault and "of 4.0 s; so does the result" in fault
    assert 30 < len(times_of(tmp_path / "out.mp4")) < 90 == report.frames + 90 - report.frames


def test_an_mp4_without_its_end_cannot_be_read(convert, clip, tmp_path):
    (tmp_path / "short.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(InvalidVideo, match="short.mp4: this is not a video, or it is truncated: the index"):
        convert(tmp_path / "short.mp4", tmp_path / "out.mp4")
    assert not list(tmp_path.glob("out*"))


def test_sound_alone_is_no_video(convert, tmp_path):
    with av.open(str(tmp_path / "sound.mka"), "w", format="matroska") as file:
        stream = file.add_stream("aac", rate=48_000)
        for packet in sound_packets(stream, 1):
            file.mux(packet)
    with pytest.raises(InvalidVideo, match="sound.mka: there is no video in this file"):
        convert(tmp_path / "sound.mka", tmp_path / "out.mp4")


@pytest.mark.parametrize("damaged", [65, 60])  # within a group of pictures, and its key frame
def test_a_damaged_packet_repeats_the_frame_before_and_is_counted(convert, clip, tmp_path, damaged):
    with av.open(str(clip)) as file:
        packets = [(each.pos, each.size) for each in file.demux(video=0) if each.size]
    content = bytearray(clip.read_bytes())
    position, size = packets[damaged]
    content[position : position + size] = bytes(size)
    (tmp_path / "damaged.mp4").write_bytes(content)
    report = convert(tmp_path / "damaged.mp4", tmp_path / "out.mp4")
    assert times_of(tmp_path / "out.mp4") == times_of(clip) and report.repeated == 1
    assert report.faults == [f"{tmp_path / 'damaged.mp4'}: 1 damaged frames, each replaced by the one before"]
    out, expected = shown(tmp_path / "out.mp4"), shown(clip)
    assert (out[damaged].float() - expected[damaged - 1].float()).abs().mean() < 8


def test_damaged_sound_of_a_transport_stream_is_left_out_and_counted(convert, tmp_path):
    source = make_clip(tmp_path / "in.ts")
    content, header = source.read_bytes(), packets_of(source)[0][0][:4]  # the same in each packet
    position = content.index(header, len(content) // 2)
    (tmp_path / "damaged.ts").write_bytes(content[:position] + bytes(2) + content[position + 2 :])
    report = convert(tmp_path / "damaged.ts", tmp_path / "out.mp4")
    assert report.faults == [f"{tmp_path / 'damaged.ts'}: 1 damaged packets of sound, left out"]
    assert len(packets_of(tmp_path / "out.mp4")) == len(packets_of(source)) - 1
    assert len(times_of(tmp_path / "out.mp4")) == len(times_of(source))


def test_clips_that_were_simply_joined_are_a_sentence(convert, tmp_path):
    source = make_clip(tmp_path / "in.ts", sound="mp2")
    (tmp_path / "joined.ts").write_bytes(2 * source.read_bytes())
    with pytest.raises(
        InvalidVideo, match="joined.ts: the times of stream 1 are not in order; repair them first, with"
    ):
        convert(tmp_path / "joined.ts", tmp_path / "out.mp4")


def test_another_error_of_ffmpeg_is_a_sentence(convert, clip, tmp_path):
    def fail(frames, total):
        raise av.BugError(558323010, "Internal bug")

    with pytest.raises(InvalidVideo, match="out.mp4: FFmpeg cannot write it: .*Internal bug"):
        convert(clip, tmp_path / "out.mp4", progress=fail)


def test_an_encrypted_video_is_said_to_be_damaged_or_encrypted(convert, tmp_path):
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    key["fflags"] = "bitexact"  # the same bytes each time: otherwise a decoder takes some of them for frames
    plain = make_clip(tmp_path / "plain.mp4", sound=None)
    with av.open(str(plain)) as given, av.open(str(tmp_path / "locked.mp4"), "w", options=key) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    with pytest.raises(InvalidVideo, match="locked.mp4: no frame of it can be decoded: it is damaged, or encrypted"):
        convert(tmp_path / "locked.mp4", tmp_path / "out.mp4")


@pytest.mark.parametrize(("ending", "codec"), [("mp4", b"avc1"), ("mkv", b"V_MPEG4/ISO/AVC")])
def test_a_codec_that_nobody_knows_is_a_sentence_and_leaves_nothing(run, weights, tmp_path, ending, codec):
    source, out = tmp_path / f"clip.{ending}", tmp_path / "out"
    content = make_clip(source).read_bytes()
    assert codec in content
    source.write_bytes(content.replace(codec, codec[:2].ljust(len(codec), b"X")))
    status, output, errors = run("video", source, "--model", weights, "-o", out / "made.mp4", "--engine", "eager")
    assert (status, output) == (1, "")
    assert errors.endswith(f"{source}: this FFmpeg has no decoder for its codec: convert it to H.264 first\n")
    assert errors.count("\n") == 1 and not list(out.glob("*"))


PROGRAM = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from perceptual.commands import main
from perceptual.video.sinks import container
container.KEY_FRAMES = 6
sys.exit(main(sys.argv[1:]))
"""


def start(limit, *arguments):
    """The command line in a process of its own, whose files have a limit in bytes, as on a full disk."""
    command = [sys.executable, "-c", PROGRAM, str(limit), "video", *map(str, arguments), "--engine", "eager"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_leaves_what_was_finished(clip, weights, tmp_path):
    process = start(200_000, clip, "--model", weights, "-o", tmp_path / "out.mp4", "--crf", "1")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1 and errors.count("\n") == 1 and "File too large" in errors
    assert "out.part.mp4" in errors
    assert 0 < len(shown(tmp_path / "out.part.mp4")) < 120
    assert not (tmp_path / "out.mp4").exists()


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return make_clip(path, noisy(pictures(160, 160, 120)), times=range(160))


def broken_off(number, *arguments):
    """What a run says that gets a signal when its part has its first fragments."""
    part = arguments[-1].with_name("out.part.mp4")
    process = start(0, *arguments)
    while process.poll() is None and not (part.exists() and part.stat().st_size > 10_000):
        time.sleep(0.02)
    process.send_signal(number)
    output, errors = process.communicate(timeout=100)
    return process.returncode, output, errors


@pytest.mark.slow
@pytest.mark.release
def test_ctrl_c_leaves_what_can_be_played(long, weights, tmp_path):
    status, output, errors = broken_off(signal.SIGINT, long, "--model", weights, "-o", tmp_path / "out.mp4")
    assert status == 130 and not errors and "out.part.mp4; --resume continues" in output
    times = times_of(tmp_path / "out.part.mp4")
    assert output.startswith(f"stopped after {len(times)} frames") and times == times_of(long)[: len(times)]


@pytest.mark.slow
def test_a_killed_run_can_be_played_and_gone_on_with(long, weights, tmp_path, run, monkeypatch):
    monkeypatch.setattr(container, "KEY_FRAMES", 6)
    arguments = (long, "--model", weights, "-o", tmp_path / "out.mp4")
    broken_off(signal.SIGKILL, *arguments)
    killed = shutil.copy(tmp_path / "out.part.mp4", tmp_path / "killed.mp4")
    assert 0 < len(shown(killed)) < 160
    assert run("video", *arguments, "--engine", "eager", "--resume") == (0, f"160 frames, in {arguments[-1]}\n", "")
    assert times_of(tmp_path / "out.mp4") == times_of(long)
    assert sound_of(tmp_path / "out.mp4")[1].shape == sound_of(long)[1].shape
    with av.open(str(killed)) as video:
        keys = [each.is_keyframe for each in video.demux(video=0) if each.size]
    last_key = len(keys) - 1 - keys[::-1].index(True)
    for out, before in zip(shown(tmp_path / "out.mp4")[:last_key], shown(killed)[:last_key], strict=True):
        assert (out == before).all()
