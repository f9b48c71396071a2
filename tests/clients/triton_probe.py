"""What Triton's own client gets from the two stages, as JSON. Runs where tritonclient is and Sluiceway is not."""

import json
import queue
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton


def main(detection: str, recognition: str, crops: list[str], images: list[str]) -> dict[str, object]:
    found = triton.InferenceServerClient(detection)
    read = triton.InferenceServerClient(recognition)
    detector = found.get_server_metadata(as_json=True)
    models = sys.argv[5].split(",")
    return {
        "live": [client.is_server_live() for client in (found, read)],
        "ready": [client.is_server_ready() for client in (found, read)],
        "servers": [detector["name"], read.get_server_metadata(as_json=True)["name"]],
        "unknown_ready": found.is_model_ready("no-such-model"),
        "model_ready": [read.is_model_ready(name) for name in models[1:]] + [found.is_model_ready(models[0])],
        "metadata": {
            name: (found if name == models[0] else read).get_model_metadata(name, as_json=True) for name in models
        },
        "detections": detect(found, models[0], images),
        "few": detect(found, models[0], images, {"max_detections": 3, "confidence": 0.3}),
        "batch": batch(found, models[0], images),
        "ranked": ranked(found, models[0], images),
        "config": found.get_model_config(models[0], as_json=True),
        "index": found.get_model_repository_index(as_json=True),
        "texts": {name: recognise(read, name, crops) for name in models[1:]},
        "one_output": recognise(read, models[1], crops, outputs=["text"]),
        "errors": errors(found, models[0]),
        "asynchronous": asynchronous(read, models[1], crops),
        "statistics": found.get_inference_statistics(models[0], as_json=True),
    }


def files(paths: list[str]) -> np.ndarray:
    return np.array([Path(path).read_bytes() for path in paths], dtype=np.object_)


def detect(
    client: triton.InferenceServerClient, model: str, paths: list[str], parameters: dict[str, object] | None = None
) -> dict[str, object]:
    images = triton.InferInput("image", [len(paths)], "BYTES")
    images.set_data_from_numpy(files(paths))
    answer = client.infer(model, [images], parameters=parameters, request_id="mine", client_timeout=60)
    assert answer.get_response().id == "mine"
    names = ("num_detections", "image_sizes", "boxes", "confidences", "class_ids")
    plain = {name: answer.as_numpy(name).tolist() for name in names}
    return plain | {"class_names": [name.decode() for name in answer.as_numpy("class_names")]}


def column(paths: list[str]) -> triton.InferInput:
    """Images as a batch of one each."""
    images = triton.InferInput("image", [len(paths), 1], "BYTES")
    images.set_data_from_numpy(files(paths).reshape(-1, 1))
    return images


def batch(client: triton.InferenceServerClient, model: str, paths: list[str]) -> dict[str, object]:
    answer = client.infer(
        model, [column(paths)], priority=1, timeout=60_000_000, sequence_id=7, sequence_start=True, client_timeout=60
    )
    names = [[name.decode() for name in row] for row in answer.as_numpy("class_names")]
    plain = {name: answer.as_numpy(name).tolist() for name in ("num_detections", "boxes")}
    return plain | {"class_names": names}


def ranked(client: triton.InferenceServerClient, model: str, paths: list[str]) -> list[list[str]]:
    wanted = [triton.InferRequestedOutput("confidences", class_count=1)]
    answer = client.infer(model, [column(paths[:1])], outputs=wanted, client_timeout=60)
    return [[entry.decode() for entry in row] for row in answer.as_numpy("confidences")]


def recognise(
    client: triton.InferenceServerClient, model: str, paths: list[str], outputs: list[str] | None = None
) -> dict[str, object]:
    crops = triton.InferInput("crop", [len(paths)], "BYTES")
    crops.set_data_from_numpy(files(paths))
    wanted = [triton.InferRequestedOutput(name) for name in outputs] if outputs else None
    answer = client.infer(model, [crops], outputs=wanted, client_timeout=60)
    return {
        "text": [text.decode() for text in answer.as_numpy("text")],
        "confidence": None if outputs else answer.as_numpy("confidence").tolist(),
    }


def asynchronous(client: triton.InferenceServerClient, model: str, paths: list[str]) -> list[str]:
    crops = triton.InferInput("crop", [1], "BYTES")
    crops.set_data_from_numpy(files(paths[:1]))
    answers: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    for _ in range(4):
        client.async_infer(model, [crops], callback=lambda result, error: answers.put((result, error)))
    texts = []
    for _ in range(4):
        result, error = answers.get(timeout=60)
        if error:
            raise error
        texts.append(result.as_numpy("text")[0].decode())
    return texts


def errors(client: triton.InferenceServerClient, model: str) -> dict[str, str]:
    told = {}

    def attempt(
        name: str, model_name: str, shape: list[int], datatype: str, data: np.ndarray, tensor: str = "image"
    ) -> None:
        image = triton.InferInput(tensor, shape, datatype)
        image.set_data_from_numpy(data)
        try:
            client.infer(model_name, [image])
            told[name] = "no error"
        except triton.InferenceServerException as error:
            told[name] = f"{error.status()}: {error.message()}"

    nothing = np.array([b"not an image"], dtype=np.object_)
    attempt("no image", model, [1], "BYTES", nothing)
    attempt("no model", "no-such-model", [1], "BYTES", nothing)
    attempt("no input", model, [1], "BYTES", nothing, "picture")
    attempt("datatype", model, [1], "FP32", np.array([1], dtype=np.float32))
    attempt("shape", model, [1, 1, 1], "BYTES", nothing.reshape(1, 1, 1))
    return told


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4].split(","))))
