"""What an operator fears: nothing may hang, and no upload may kill a worker or be answered by a server error."""

import io
import os
import random
import signal
import struct
import time
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import numpy as np
import psutil
import pytest
from PIL import Image
from serving_fixtures import Http, altered, wait_for
from ts.model_server import load_properties

from perceptual.errors import ServerError
from perceptual.serving.configuration import CONFIG
from perceptual.serving.registration import register

OCTETS = {"Content-Type": "application/octet-stream"}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAGIC = {
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "WEBP": b"RIFF\xff\x00\x00\x00WEBPVP8 ",
    "BMP": b"BM\xff\xff\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00",
    "TIFF": b"II*\x00\x08\x00\x00\x00",
    "GIF": b"GIF89a",
}
PATIENCE = 60  # seconds; far more than anything here takes, and less than the server's own limit

HANDLER = b"""
import time

class Unruly:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        command, number = bytes(data[0]["body"]).decode().split()
        if command == "sleep":
            time.sleep(float(number))
            return [b"slept"]
        return [b"x" * int(number)]
"""
YAML = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 1\nmaxBatchDelay: 1\nresponseTimeout: {}\nstartupTimeout: 120\n"


def unruly_archive(server, version, response_timeout):
    """An archive whose model sleeps, or replies with a number of bytes, as the request says."""
    changes = {"style_transfer.py": HANDLER, "style_transfer.yaml": YAML.format(response_timeout).encode()}
    target = server.model_store / f"unruly-{version}.mar"
    return altered(server.model_store / "tiny.mar", target, changes, modelName="unruly", modelVersion=version)


@pytest.fixture(scope="module")
def unruly(server, management):
    """Version 1 must answer within three seconds, version 2 within a minute."""
    archives = [unruly_archive(server, "1", 3), unruly_archive(server, "2", 60)]
    for archive in archives:
        management.register(archive.name)
    yield
    management.unregister("unruly")
    for archive in archives:
        archive.unlink()


@pytest.fixture
def ask(server):
    """Sends a body to a model; gives its status and how long it took."""
    auth, url = server.address.tokens("inference"), server.address.inference_url
    with Http(url, auth, PATIENCE) as http:

        def send(model, body, **headers):
            start = time.monotonic()
            reply = http.post(f"/predictions/{model}", data=body, headers=OCTETS | headers)
            send.size = len(reply.content)
            return reply.status_code, time.monotonic() - start

        yield send


def test_a_worker_killed_under_load_fails_no_request(unruly, management, ask):
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, "unruly", b"sleep 0.1") for _ in range(24)]
        wait_for(lambda: sum(each.done() for each in asked) >= 4, seconds=PATIENCE)
        (worker,) = management.ready_workers("unruly")
        os.kill(worker, signal.SIGKILL)
        statuses = Counter(each.result()[0] for each in asked)
    assert statuses == {200: 24}


def test_a_handler_that_hangs_is_answered_and_replaced(unruly, ask):
    status, seconds = ask("unruly", b"sleep 1000")
    assert status == 500 and 3 <= seconds < 15
    assert ask("unruly", b"sleep 0")[0] == 200


def test_a_full_queue_refuses_at_once(unruly, ask):
    with ThreadPoolExecutor(90) as pool:
        first = pool.submit(ask, "unruly/2", b"sleep 8")  # all the others come meanwhile
        time.sleep(0.5)
        rest = [pool.submit(ask, "unruly/2", b"sleep 0") for _ in range(89)]
        assert first.result()[0] == 200
        replies = [each.result() for each in rest]
    refused = [seconds for status, seconds in replies if status == 503]
    assert Counter(status for status, _ in replies) == {200: 64, 503: 25}
    assert np.median(refused) < 1


@pytest.mark.parametrize("share", [1 / 8, pytest.param(1, marks=pytest.mark.release)])
def test_a_reply_below_the_limit_arrives(unruly, ask, share):
    below = int(share * int(load_properties(str(CONFIG))["max_response_size"])) - 2**16
    assert ask("unruly/2", f"reply {below}".encode())[0] == 200
    assert ask.size == below


@pytest.mark.parametrize("damage", ["truncated", "no archive", "empty", "no manifest", "no handler"])
def test_a_malformed_archive_is_refused(server, management, tmp_path, damage):
    whole = (server.model_store / "tiny.mar").read_bytes()
    bad = tmp_path / "malformed.mar"
    if damage == "no manifest":
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("style_transfer.py", "")
    elif damage == "no handler":
        altered(server.model_store / "tiny.mar", bad, modelName="malformed", handler="nowhere.py")
    else:
        bad.write_bytes({"truncated": whole[: len(whole) // 2], "no archive": b"junk", "empty": b""}[damage])
    with pytest.raises(ServerError):
        register(server.address, bad)
    stored = server.model_store / bad.name
    assert not stored.exists()
    stored.write_bytes(bad.read_bytes())
    try:
        with pytest.raises(ServerError):  # without our own checks
            management.register(stored.name)
    finally:
        stored.unlink()
    assert "malformed" not in management.models() and server.healthy()


def encoded(size, format, **options):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, depth=8, color=2):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def hostile_uploads():
    chance = random.Random(0)
    for format in FORMATS:
        whole = encoded((24, 20), format)
        yield from (whole[: round(len(whole) * place / 14)] for place in range(14))  # the first is empty
        yield from (MAGIC[format] + chance.randbytes(length) for length in (0, 1, 16, 300, 5000))
        for _ in range(10):  # wrong lengths, offsets, tables, checksums
            bytes_ = bytearray(whole)
            for _ in range(4):
                bytes_[chance.randrange(len(MAGIC[format]), min(len(whole), 400))] = chance.randrange(256)
            yield bytes(bytes_)
        yield whole + whole
    zeros = zlib.compress(bytes(30_000_000), 9)  # 29 KB
    yield png(60000, 60000, chunk(b"IDAT", zeros))
    yield png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", zeros))
    yield png(0, 0, chunk(b"IDAT", zeros))
    yield png(8, 8, chunk(b"IDAT", zeros))  # far more rows than there are
    yield png(15000, 15000, chunk(b"IDAT", zeros), depth=1, color=0)  # really that large
    for kind, data in ((b"iCCP", b"x\0\0" + zeros), (b"zTXt", b"x\0\0" + zeros), (b"iTXt", b"x\0\1\0\0\0" + zeros)):
        yield png(8, 8, chunk(kind, data), chunk(b"IDAT", zlib.compress(bytes(8 * 25))))
    yield (
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    )
    yield b"II*\0" + struct.pack("<IH", 8, 65535) + chance.randbytes(2000)  # a TIFF of 65535 entries
    yield b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 256, 4, 2**32 - 1, 2**32 - 1) * 3
    yield b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -(2**31), 2**31 - 1, 1, 24, 0, 2**32 - 1, 0, 0, 0, 0
    )
    yield from (encoded(size, "PNG") for size in ((1, 1), (1, 3000), (3000, 1), (2, 3)))
    for orientation in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield encoded((24, 20), "JPEG", exif=exif)
    yield encoded((24, 20), "JPEG", exif=b"Exif\0\0" + chance.randbytes(3000))
    yield encoded((24, 20), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\xff\xff\xff\xff\xff\xff" * 99)
    for icc in (b"", b"x", bytes(200_000), chance.randbytes(3000), b"\xff\xff\xff\xff" + chance.randbytes(500)):
        yield encoded((24, 20), "PNG", icc_profile=icc)
        yield encoded((24, 20), "JPEG", icc_profile=icc)


def test_no_upload_does_harm(server, management, ask, photo):
    uploads = list(hostile_uploads())
    assert len(uploads) >= 200
    workers = management.ready_workers("tiny")
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda data: ask("tiny", data)[0], uploads))
    wrong = {index: status for index, status in enumerate(statuses) if status not in (200, 400, 413, 415)}
    assert wrong == {}
    assert statuses.count(400) > 100 and statuses.count(413) >= 3
    assert management.ready_workers("tiny") == workers
    assert ask("tiny", photo)[0] == 200


@pytest.mark.parametrize("requests", [400, pytest.param(2500, marks=pytest.mark.release)])
def test_a_worker_takes_no_more_after_many_requests(management, ask, requests):
    """Memory, files and threads of the worker, over a mix of formats, options, mistakes and ever new sizes."""
    chance = random.Random(0)
    (pid,) = management.ready_workers("tiny")
    worker = psutil.Process(pid)

    def load(requests):
        with ThreadPoolExecutor(4) as pool:
            return Counter(pool.map(lambda each: ask("tiny", each[0], **each[1])[0], islice(mix(), requests)))

    def mix():
        for format in cycle(FORMATS):
            good = encoded((chance.randint(16, 160), chance.randint(16, 160)), format)
            yield good, {}
            yield good, {"X-Strength": "0.5", "X-Keep-Colors": "on", "Accept": "image/png"}
            yield chance.choice([(good[:200], {}), (good, {"X-Strength": "7"}), (good, {"Accept": "text/html"})])

    load(requests // 5)
    before = worker.memory_info().rss, worker.num_fds(), worker.num_threads()
    statuses = load(requests - requests // 5)
    memory, files, threads = worker.memory_info().rss, worker.num_fds(), worker.num_threads()
    assert statuses.keys() == {200, 400, 406, 422}
    assert memory < (1.05 if requests > 2000 else 1.15) * before[0]  # at first the allocator still takes some
    assert (files, threads) == before[1:]
