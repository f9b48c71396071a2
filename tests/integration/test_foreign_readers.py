"""Text models of the conventions of other families, served: what each reads in crops that are drawn for it."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from foreign_readers import ForeignReader
from recognition_serving import ask, raw, serving

from sluiceway.recognition.v1 import recognition_pb2 as pb

SMALL = string.digits + string.ascii_lowercase
# docTR: the blank last, a vocabulary without a space, crops of 32 x 128 on black, means and deviations of its own.
DOCTR = ForeignReader((*SMALL, "é", "€", ""), (32, 128), mean=(177.0, 177.2, 176.7), std=(76.2, 75.5, 76.8))
# CRNN as it was published: digits and small letters, one channel of 32 x 104, steps before the batch.
CRNN = ForeignReader(("", *SMALL), (32, 104), channels=1, steps_first=True, batch=1)
# EasyOCR: one channel, and the space where its list has it.
EASY = ForeignReader(("", *string.digits, " ", "A", "B", "c"), (64, 160), channels=1)
# PARSeq: no blank, but a class that ends the text; two equal letters are two.
PARSEQ = ForeignReader(("", *SMALL), (32, 128), ends=True)
# PP-OCR's own lists with a file of one's own.
OWN = ForeignReader(("", "x", "y", "Ω", " "), (48, 160))


def models(folder: Path) -> list[dict[str, object]]:
    (folder / "easy.txt").write_text("\n".join((*string.digits, " ", "A", "B", "c")))
    (folder / "own.txt").write_text("x\ny\nΩ\n")
    shared = {"precision": "f32", "upright": "none"}
    return [
        {
            "name": "doctr",
            "weights": str(DOCTR.save(folder / "doctr.onnx")),
            "height": 32,
            "max_width": 128,
            "format": "rgb",
            "mean": DOCTR.mean,
            "std": DOCTR.std,
            "padding": "black",
            "buckets": [128],
            "alphabet": SMALL + "é€",
            "blank": "last",
            **shared,
        },
        {
            "name": "crnn",
            "weights": str(CRNN.save(folder / "crnn.onnx")),
            "height": 32,
            "max_width": 104,
            "resize_rule": "stretch",
            "alphabet": SMALL,
            **shared,
        },
        {
            "name": "easy",
            "weights": str(EASY.save(folder / "easy.onnx")),
            "height": 64,
            "max_width": 160,
            "buckets": [160],
            "characters": str(folder / "easy.txt"),
            **shared,
        },
        {
            "name": "parseq",
            "weights": str(PARSEQ.save(folder / "parseq.onnx")),
            "height": 32,
            "max_width": 128,
            "resize_rule": "stretch",
            "alphabet": SMALL,
            "decoder": "steps",
            **shared,
        },
        {
            "name": "own",
            "weights": str(OWN.save(folder / "own.onnx")),
            "height": 48,
            "max_width": 160,
            "buckets": [160],
            "characters": str(folder / "own.txt"),
            **shared,
        },
    ]


CASES = {
    "doctr": (DOCTR, ("locked", "aabbé", "9€", "z0z0")),
    "crnn": (CRNN, ("sluice", "7pp42", "0", "zzz9")),
    "easy": (EASY, ("42 A", "1 2 3", "BBc 0", "AA")),
    "parseq": (PARSEQ, ("bookkeeper", "11", "", "lock14gate")),
    "own": (OWN, ("xx y", "Ω Ω", "yΩx", "x")),
}


async def test_models_of_every_convention_are_read_right(tmp_path: Path) -> None:
    async with serving(models=models(tmp_path)) as (_, stub):
        for name, (reader, texts) in CASES.items():
            crops = [raw(number, reader.draw(text)) for number, text in enumerate(texts)]
            answers = await ask(stub, *crops, options=pb.RecognizeOptions(model=name, words=True, characters=True))
            assert [answers[number].text.text for number in range(len(texts))] == list(texts), name
            # Where the steps lie over the crop, words do.
            assert bool(answers[0].text.words) == (not reader.ends), name
        # A crop that is narrower than what docTR's models take ends where it ends.
        crops = [raw(number, DOCTR.draw(text, fill=False)) for number, text in enumerate(CASES["doctr"][1])]
        answers = await ask(stub, *crops, options=pb.RecognizeOptions(model="doctr"))
        assert [answers[number].text.text for number in range(len(crops))] == list(CASES["doctr"][1])


@pytest.mark.torch
async def test_torch_reads_them_alike(tmp_path: Path) -> None:
    async with serving(models=[{**model, "backend": "torch"} for model in models(tmp_path)]) as (_, stub):
        for name, (reader, texts) in CASES.items():
            crops = [raw(number, reader.draw(text)) for number, text in enumerate(texts)]
            answers = await ask(stub, *crops, options=pb.RecognizeOptions(model=name))
            assert [answers[number].text.text for number in range(len(texts))] == list(texts), name
