"""Inputs for fuzzing: sound seeds of every kind, and a mutator that knows where formats are brittle."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from heic_files import PLAIN, TRANSPARENT, TURNED
from pdf_files import pdf_of, pdf_of_pictures
from PIL import Image

from sluiceway.common.v1 import crop_pb2, error_pb2, model_pb2, value_pb2
from sluiceway.detection.v1 import detection_pb2
from sluiceway.pipeline.v1 import pipeline_pb2
from sluiceway.recognition.v1 import recognition_pb2

# Lengths, sizes and offsets that parsers get wrong.
NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    exif[306] = "2026:11:22 00:00:00"
    return exif.tobytes()


def images() -> list[bytes]:
    """Small pictures of every format, mode and oddity that a camera, scanner or attacker sends."""
    pixels = np.random.default_rng(0).integers(0, 255, (9, 14, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    seeds = [_save(rgb, kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "ICO")]
    seeds += [
        _save(rgb, "JPEG", quality=30, progressive=True),
        _save(rgb, "JPEG", subsampling=2, restart_marker_rows=1),
    ]
    seeds += [_save(rgb, "WEBP", lossless=True), _save(rgb, "WEBP", exif=_exif(6))]
    seeds += [_save(rgb, "JPEG", exif=_exif(orientation)) for orientation in (2, 6, 8, 99)]
    seeds += [_save(rgb, "PNG", exif=_exif(5)), _save(rgb, "TIFF", exif=_exif(7))]
    seeds += [_save(rgb.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")]
    seeds += [_save(rgb.convert("CMYK"), kind) for kind in ("JPEG", "TIFF")]
    seeds += [_save(rgb.convert(mode), "TIFF") for mode in ("1", "L", "P", "RGBA", "LAB", "YCbCr", "I", "F")]
    seeds += [_save(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
    seeds += [_save(rgb.convert("1"), "TIFF", compression=name) for name in ("group3", "group4", "tiff_ccitt")]
    seeds += [_save(rgb, "TIFF", compression=name) for name in ("lzma", "zstd")]
    seeds += [_save(rgb, "AVIF"), _save(rgb.convert("RGBA"), "AVIF", quality=90, exif=_exif(6))]
    seeds += [_save(rgb.convert(mode), "JPEG2000") for mode in ("L", "LA", "RGB", "RGBA")]
    seeds += [_save(rgb, "JPEG2000", no_jp2=True), _save(rgb, "JPEG2000", irreversible=True, quality_layers=[20, 5])]
    seeds.append(_save(rgb, "JPEG2000", tile_size=(8, 8), num_resolutions=2, precinct_size=(16, 16)))
    seeds += [_save(rgb, "JPEG")[:-2], _save(rgb, "JPEG", progressive=True)[:-2]]
    seeds += [_save(rgb.convert(mode), "PNG", transparency=7) for mode in ("L", "P")]
    seeds += [_save(rgb, "PNG", transparency=(1, 2, 3)), _save(rgb.convert("RGBA"), "WEBP", lossless=True)]
    seeds += [_save(rgb, "TIFF", big_tiff=True), PLAIN, TURNED, TRANSPARENT]
    seeds.append(bytes(cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1]))
    seeds.append(_save(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "TIFF"))
    frames = [rgb.rotate(90 * turn) for turn in range(3)]
    for kind in ("PNG", "WEBP", "TIFF", "GIF"):
        seeds.append(_save(frames[0], kind, save_all=True, append_images=frames[1:]))
    seeds += [_save(rgb.convert(mode), "BMP") for mode in ("1", "L", "P", "RGBA")]
    # Polyglots: something else behind, before or inside a picture.
    seeds += [seeds[0] + b"PK\x03\x04" + bytes(30), b"%PDF-1.4\n" + seeds[1], seeds[1] + b"<script>alert(1)</script>"]
    seeds += [bomb(50_000, 50_000), bomb(0, 10), bomb(2**31 - 1, 1), seeds[0][:2] + seeds[1]]
    return seeds


def paged() -> list[bytes]:
    """Small documents of several pages."""
    scan = Image.fromarray(np.random.default_rng(1).integers(0, 255, (9, 14, 3), np.uint8))
    others = [scan.rotate(90 * turn) for turn in range(1, 3)]
    size = (60, 80)
    seeds = [
        pdf_of(["one", "two"], size_pt=size),
        pdf_of(["one"] * 3, size_pt=size, damaged={1}),
        pdf_of(["a"], size_pt=size, password="x"),
        pdf_of_pictures([_save(scan, "JPEG")] * 2, [scan.size] * 2, dpi=36),
    ]
    seeds += [
        _save(
            scan.convert(mode), "TIFF", save_all=True, append_images=[page.convert(mode) for page in others], **options
        )
        for mode, options in (("RGB", {}), ("L", {"compression": "tiff_lzw"}), ("1", {"compression": "group4"}))
    ]
    return seeds


def bomb(width: int, height: int) -> bytes:
    """A PNG that promises more than it has."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def messages() -> list[bytes]:
    """Serialised requests with every field set somewhere."""
    spec = crop_pb2.CropSpec(name="m", height=48, max_width=960)
    options = detection_pb2.DetectOptions(confidence=0.3, iou=0.5, classes=["row"], max_detections=9, image_size=640)
    raw = crop_pb2.RawImage(data=bytes(24), height=2, width=4)
    head = recognition_pb2.RecognizeOptions(model="m", characters=True, top_k=3)
    detection = pipeline_pb2.DetectionOptions.FromString(options.SerializeToString())
    reading = pipeline_pb2.RecognitionOptions(characters=True, top_k=3)
    process = pipeline_pb2.ProcessOptions(
        detection=detection,
        recognition=reading,
        priority=model_pb2.PRIORITY_BULK,
        return_images=True,
        detect_only=True,
        steps={"text": pipeline_pb2.StepOptions(detection=detection)},
    )
    sources = [
        pipeline_pb2.Source(source_id="a", image=b"\xff\xd8\xff"),
        pipeline_pb2.Source(source_id="b", url="https://example.org/a.png?x=1"),
        pipeline_pb2.Source(source_id="c", api_call=pipeline_pb2.ApiCall(api="x", params={"k": "v"})),
        pipeline_pb2.Source(calls=[pipeline_pb2.ApiCall(api="x", name="y"), pipeline_pb2.ApiCall(api="x")]),
    ]
    looked_up = pipeline_pb2.ProcessRequest(sources=[pipeline_pb2.Source(params={"id": "7"})], pipeline="looked_up")
    looked_up.timeout.FromMilliseconds(1500)
    job = pipeline_pb2.ProcessRequest(job_id="j", sources=sources, options=process)
    answer = detection_pb2.DetectResponse(
        width=3, height=4, crops=[crop_pb2.Crop(id=1, spec="m", raw=raw), crop_pb2.Crop(id=7, encoded=b"x")]
    )
    answer.crops[0].to_image.matrix.extend(range(9))
    for index in range(3):
        region = answer.detections.add(id=index, class_name="row", confidence=0.5)
        region.geometry.box.x1 = region.geometry.box.y1 = 3
    answer.detections[1].geometry.polygon.points.add(x=1, y=2)
    answer.detections[2].geometry.rotated_box.angle_degrees = 30
    read = recognition_pb2.RecognizeResponse(
        recognitions=[
            recognition_pb2.Recognition(crop_id=0, text=value_pb2.Text(text="a", confidence=0.5)),
            recognition_pb2.Recognition(crop_id=2, error=error_pb2.Error(code=13, reason="INTERNAL")),
        ],
        model=model_pb2.Model(name="m"),
    )
    found = [
        job,
        looked_up,
        pipeline_pb2.ProcessStreamRequest(job=job),
        pipeline_pb2.ProcessStreamRequest(cancel=pipeline_pb2.CancelJob(job_id="j")),
        detection_pb2.DetectRequest(
            image=b"\x89PNG", options=options, crop_specs=[spec], priority=model_pb2.PRIORITY_NORMAL
        ),
        detection_pb2.DetectRequest(
            crops=[crop_pb2.Crop(id=1, raw=raw), crop_pb2.Crop(id=2, encoded=b"\xff\xd8")], options=options
        ),
        detection_pb2.DetectPagesRequest(
            document=b"%PDF-1.7", options=options, crop_specs=[spec], first_page=2, max_pages=7, except_pages=[3, 4]
        ),
        recognition_pb2.RecognizeRequest(
            crops=[crop_pb2.Crop(id=1, raw=raw), crop_pb2.Crop(id=2, encoded=b"\xff\xd8")], options=head
        ),
        recognition_pb2.RecognizeRequest(
            crops=[crop_pb2.Crop(spec=label, raw=raw) for label in ("a", "a", "\u00e4" * 100)]
        ),
        answer,
        read,
        pipeline_pb2.ProcessResponse(job_id="j", source_id="0", done=pipeline_pb2.SourceDone(reading_order=[1, 2])),
    ]
    return [message.SerializeToString() for message in found]


def configurations() -> list[bytes]:
    """Configuration files, of which one is sound."""
    return [
        (
            b'[detection]\nport = 1\nworkers = "auto"\nshapes = ["640x640"]\ncores = "0-3"\nconfidence = 0.2\n'
            b'[recognition]\nmodels = ["ppocrv6-tiny", {name = "x", kind = "embed", std = 2.0}]\n'
            b'[orchestrator]\ndefault_pipeline = "read"\nurl_allow_cidrs = ["10.0.0.0/8"]\n'
            b'[security.clients.a]\ntoken_sha256 = "' + b"0" * 64 + b'"\nrate_per_s = 3\n'
        ),
        (
            b'[api.a]\nurl = "https://h/{p}"\nparams = ["p"]\nimage = "base64"\nimage_pointer = "/a/0"\n'
            b'headers = {X = "{secret.S}"}\nsecrets = {S = "ENV"}\nvalues = {m = "/m"}\n'
        ),
        (
            b'[stages.figures]\nkind = "detection"\ntarget = "127.0.0.1:9"\n[[pipelines.p.steps]]\nname = "text"\n'
            b'stage = "figures"\nclasses = ["row"]\n[[pipelines.p.steps]]\nname = "words"\nstage = "recognition"\n'
            b'of = "text"\nmodel = "m"\noptions = {top_k = 3}\n[[pipelines.p.steps]]\nname = "tell"\napi = "a"\n'
            b'after = ["words"]\nparams = {p = "{values} {param.q}"}\non_error = "fail"\n'
        ),
        b"[detection]\nport = -1\nunknown = 1\nmax_image_bytes = 1e99\n[detection.x]\n",
        b'detection = 3\nrecognition = []\n"" = 1\n',
    ]


def documents() -> list[bytes]:
    """Answers of APIs, and bodies of HTTP requests."""
    answers = [
        {"a": [{"image": "data:image/png;base64,iVBORw0KGgo="}], "m": {"k": [1, None, "x", 1.5, True]}},
        {"sources": [{"sourceId": "s", "image": "AAAA"}], "options": {"detection": {"confidence": 0.5}, "priority": 2}},
        {"sources": [{"url": "https://x"}, {"apiCall": {"api": "a", "params": {"k": "v"}}}], "jobId": "j"},
        ["a", {"b": "\ud83d\ude00"}, [[[[]]]]],
    ]
    return [json.dumps(answer).encode() for answer in answers] + [b"[" * 3000, b'{"a":' * 3000, b"\xff\xfe", b"1e999"]


class Mutator:
    """Changes inputs. The same seed gives the same inputs, so a finding is repeated by its number."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, seeds: Sequence[bytes]) -> bytes:
        """One seed after one to eight changes."""
        data = bytearray(self.random.choice(seeds))
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8))):
            self._change(data, seeds)
        return bytes(data[:65_536])

    def _change(self, data: bytearray, seeds: Sequence[bytes]) -> None:
        chance = self.random
        at = chance.randrange(len(data) + 1)
        # The first bytes decide most: half of all changes go there.
        if chance.random() < 0.5:
            at = min(at, chance.randrange(96))
        kind = chance.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + chance.randrange(1, 40)]
        elif kind == 4:
            data[at:at] = chance.randbytes(chance.randrange(1, 24))
        elif kind == 5:
            order, size = chance.choice("<>"), chance.choice("BHI")
            number = chance.choice(NUMBERS) & (256 ** struct.calcsize(size) - 1)
            data[at : at + struct.calcsize(size)] = struct.pack(order + size, number)
        elif kind == 6:
            data[at:at] = data[at : at + chance.randrange(1, 200)]
        elif kind == 7:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
        else:
            self._checksum(data)

    @staticmethod
    def _checksum(data: bytearray) -> None:
        """Make a PNG's checksums right again, so that what lies behind them is reached."""
        if data[:4] != b"\x89PNG":
            return
        position = 8
        while position + 12 <= len(data):
            (length,) = struct.unpack_from(">I", data, position)
            end = position + 8 + length
            if end + 4 > len(data):
                return
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
            position = end + 4
