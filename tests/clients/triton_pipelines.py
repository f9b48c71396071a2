"""What Triton's own clients get from the pipelines of an orchestrator, as JSON; see `triton_probe.py`."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http


def main(grpc_address: str, http_address: str, images: list[str]) -> dict[str, object]:
    ways = (("grpc", tritonclient.grpc, grpc_address), ("http", tritonclient.http, http_address))
    return {name: ask(library, address, images) for name, library, address in ways}


def plain(answer: Any) -> Any:
    """Messages of the one library, and the other's dictionaries, in one form."""
    if isinstance(answer, (dict, list)):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)


def ask(library: ModuleType, address: str, paths: list[str]) -> dict[str, object]:
    client = library.InferenceServerClient(address)
    pictures = np.array([[Path(path).read_bytes()] for path in paths], dtype=np.object_)
    tensor = library.InferInput("image", list(pictures.shape), "BYTES")
    tensor.set_data_from_numpy(pictures)
    answer = client.infer("read", [tensor], request_id="mine", priority=1, timeout=60_000_000)
    texts = answer.as_numpy("texts")
    one = library.InferInput("image", [1, 1], "BYTES")
    one.set_data_from_numpy(pictures[:1])
    wanted = [library.InferRequestedOutput("texts", class_count=2)]
    best = client.infer("read", [one], outputs=wanted).as_numpy("texts")
    told = {}
    for name, attempt in (
        ("unknown", lambda: client.get_model_metadata("no-such-model")),
        ("load", lambda: client.load_model("read")),
        ("memory", lambda: client.register_system_shared_memory("a", "/a", 8)),
    ):
        try:
            attempt()
            told[name] = "no error"
        except library.InferenceServerException as error:
            told[name] = error.message()
    config = plain(client.get_model_config("read"))
    return {
        "live": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("read")],
        "unknown_ready": client.is_model_ready("no-such-model"),
        "server": plain(client.get_server_metadata())["name"],
        "metadata": plain(client.get_model_metadata("read"))["name"],
        "max_batch_size": config.get("config", config)["max_batch_size"],
        "counts": answer.as_numpy("num_regions").tolist(),
        "texts": [[text.decode() for text in row] for row in texts],
        "boxes": answer.as_numpy("boxes").tolist(),
        "best": [[text.decode() for text in row] for row in best],
        "memory_status": len(plain(client.get_system_shared_memory_status())),
        "errors": told,
        "statistics": plain(client.get_inference_statistics("read")),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3].split(","))))
