"""Train text-nano from scratch by distillation, on one CUDA device, within a given time.

    python -m training.text_detector.train --corpus corpus --teacher best.pt --out run --minutes 16

Pictures stream in from the generator while training runs; the learning rate follows the clock, so that a lease of any
length ends with a finished model. The pictures are a function of the seed; the number of steps depends on the machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from pathlib import Path

import torch
from torch import nn

from .distillation import Hints, agreement_loss, build_student, load_teacher
from .pool import Pool
from .views import random_views


def _groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and normalisation do not."""
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


class Average:
    """Exponential moving average of a model's state; what is exported."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay, self._steps = decay, 0
        self._pairs = [
            (mine, theirs)
            for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step toward the model's present state."""
        self._steps += 1
        decay = self._decay * (1 - math.exp(-self._steps / 400))
        floats = [(a, b) for a, b in self._pairs if a.dtype.is_floating_point]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)


def _faster_layout(
    student: nn.Module, teacher: nn.Module, batch: int, size: int, device: torch.device
) -> torch.memory_format:
    """Time a step in both memory layouts: depthwise convolutions decide which is faster, and they differ by device."""
    if device.type != "cuda":
        return torch.contiguous_format
    trial, timed = copy.deepcopy(student), {}
    for layout in (torch.channels_last, torch.contiguous_format):
        trial, teacher = trial.to(memory_format=layout), teacher.to(memory_format=layout)
        views = torch.rand(batch, 3, size, size, device=device, dtype=torch.float16).contiguous(memory_format=layout)
        for run in range(8):
            if run == 3:
                torch.cuda.synchronize()
                began = time.monotonic()
            with torch.no_grad(), torch.autocast("cuda", torch.float16):
                teacher(views)
            if run == 7:
                torch.cuda.synchronize()
                middle = time.monotonic()
            with torch.autocast("cuda", torch.bfloat16):
                out = trial(views)
            (out["boxes"].float().mean() + out["scores"].float().mean()).backward()
        torch.cuda.synchronize()
        timed[layout] = (time.monotonic() - began) / 5
        print(
            f"{layout}: {timed[layout] * 1e3:.0f} ms a step, "
            f"{(time.monotonic() - middle) * 1e3:.0f} ms of it the student",
            flush=True,
        )
    return min(timed, key=lambda layout: timed[layout])


def _save(model: nn.Module, path: Path) -> None:
    state = {
        name: value.half() if value.dtype.is_floating_point else value for name, value in model.state_dict().items()
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(arguments: argparse.Namespace) -> None:
    """Run the recipe; writes `student.pt` (averaged weights, half precision) and `log.jsonl` under `arguments.out`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for path in (arguments.corpus / "fonts/index.json", arguments.teacher, arguments.resume):
        if path is not None and not path.exists():
            raise SystemExit(f"no such file: {path}")
    pool = Pool(
        arguments.corpus,
        arguments.capacity,
        device,
        seed=1_000_000 * (1 + arguments.seed),
        processes=arguments.processes,
        real_share=arguments.real_share,
    )
    try:
        _distil(arguments, device, pool)
    finally:  # or the processes would keep a failed run alive
        pool.close()


def _distil(arguments: argparse.Namespace, device: torch.device, pool: Pool) -> None:
    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    cuda = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    student = build_student()
    if arguments.resume:
        state = torch.load(arguments.resume, map_location="cpu")
        # Only what is named is taken over; --resume-without drops the rest (".cv2." are the box layers of the head).
        state = {
            k: v.float()
            for k, v in state.items()
            if not arguments.resume_without or arguments.resume_without not in k or "model.23" not in k
        }
        student.load_state_dict(state, strict=not arguments.resume_without)
    student, teacher = student.to(device).train(), load_teacher(arguments.teacher).to(device)
    channels = [[head[0].conv.in_channels for head in model.model[-1].cv2] for model in (student, teacher)]
    hints = Hints(*channels).to(device)
    layout = _faster_layout(student, teacher, arguments.batch, arguments.size, device)
    student, teacher = student.to(memory_format=layout), teacher.to(memory_format=layout)
    average = Average(student, 0.999)
    optimiser = torch.optim.AdamW(
        [*_groups(student, 0.03), *_groups(hints, 0.0)], lr=arguments.lr, betas=(0.9, 0.98), fused=cuda
    )
    run_student, run_teacher = (torch.compile(m, dynamic=False) if arguments.compile else m for m in (student, teacher))
    generator = torch.Generator(device).manual_seed(arguments.seed)

    def forward(views: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        with torch.no_grad(), torch.autocast(device.type, torch.float16 if cuda else torch.bfloat16, enabled=cuda):
            wanted = run_teacher(views)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            ours = run_student(views)
            hint = hints(ours["feats"], wanted["feats"])
        return agreement_loss(ours, wanted), hint

    while pool.filled < min(arguments.capacity, 12 * arguments.batch) and time.monotonic() - began < 90:
        if pool.fault:
            raise RuntimeError("the pool of pictures has stopped") from pool.fault
        time.sleep(0.05)
    print(f"pool {pool.filled} after {time.monotonic() - began:.0f} s", flush=True)
    log = (arguments.out / "log.jsonl").open("a")
    start, step, saved = time.monotonic(), 0, time.monotonic()
    budget = max(1.0, arguments.minutes * 60 - (start - began))
    sums: dict[str, torch.Tensor] = {}
    while True:
        progress = max((time.monotonic() - start) / budget, step / arguments.steps)
        if progress >= 1:
            break
        if step == 20:
            mark = time.monotonic()
        lr = arguments.lr * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = lr
        mosaic = step % 6 == 5 and progress < 0.9
        pictures = pool.batch(arguments.batch * (4 if mosaic else 1), generator)
        views = random_views(pictures, arguments.size, mosaic, generator).contiguous(memory_format=layout)
        del pictures
        losses, hint = forward(views)
        hint_gain = arguments.hint * max(0.0, 1 - progress / 0.6)
        total = losses["score"] + 5.0 * losses["overlap"] + losses["distance"] + hint_gain * hint
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        average.update()
        step += 1
        for name, value in {**losses, "hint": hint, "norm": norm}.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
        if step % arguments.every == 0 or step == 20:
            seen = {
                name: round(float(value) / (arguments.every if step != 20 else 20), 4) for name, value in sums.items()
            }
            sums = {}
            speed = (step - 20) * arguments.batch / (time.monotonic() - mark) if step > 20 else 0.0
            line = {
                "step": step,
                "seconds": round(time.monotonic() - began),
                "lr": round(lr, 6),
                "pictures": pool.filled,
                "images_per_s": round(speed),
                **seen,
            }
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
        if time.monotonic() - saved > 60:
            _save(average.model, arguments.out / "student.pt")
            saved = time.monotonic()
    _save(average.model, arguments.out / "student.pt")
    (arguments.out / "finished").touch()
    print(f"done: {step} steps, {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="a student.pt to go on from")
    parser.add_argument("--resume-without", default="", help="leave out the head's layers with this in their name")
    parser.add_argument("--minutes", type=float, default=16.0, help="wall-clock budget, the start included")
    parser.add_argument("--steps", type=int, default=10**9, help="stop after so many steps if that comes first")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--hint", type=float, default=1.0, help="weight of the feature loss at the start")
    parser.add_argument("--real-share", type=float, default=0.45, help="share of pictures that are views of real ones")
    parser.add_argument(
        "--capacity", type=int, default=16_000, help="pictures kept in the device's memory (2.1 MB each)"
    )
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=100, help="steps between log lines")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
