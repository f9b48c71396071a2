"""A client of Triton for image files, in the manner of Triton's own for ensembles: a folder as one batch, all ranked.

It knows no model beforehand: names, batch size and outputs are those that the server tells. Prints JSON: for each file,
by output, the best elements as `value:index:label`. Runs where tritonclient is and Sluiceway is not.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

LIBRARIES = {"grpc": tritonclient.grpc, "http": tritonclient.http}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--protocol", choices=LIBRARIES, default="http")
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    library = LIBRARIES[given.protocol]
    client = library.InferenceServerClient(given.url)
    assert client.is_server_live()
    assert client.is_model_ready(given.model)
    metadata, config = client.get_model_metadata(given.model), client.get_model_config(given.model)
    # Only the one library has it inside an answer.
    config = getattr(config, "config", config)
    (source,), (configured,) = field(metadata, "inputs"), field(config, "input")
    assert field(source, "name") == field(configured, "name")
    most = field(config, "max_batch_size")
    files = sorted(path for path in given.folder.iterdir() if path.is_file())[:most]
    batch = np.stack([np.array([path.read_bytes()], dtype=np.object_) for path in files])
    tensor = library.InferInput(field(source, "name"), batch.shape, field(source, "datatype"))
    tensor.set_data_from_numpy(batch)
    names = [field(output, "name") for output in field(metadata, "outputs")]
    wanted = [library.InferRequestedOutput(name, class_count=given.classes) for name in names]
    answer = client.infer(given.model, [tensor], outputs=wanted)
    found: dict[str, dict[str, list[str]]] = {path.name: {} for path in files}
    for name in names:
        ranked = answer.as_numpy(name)
        assert len(ranked) == len(files), f"{name}: {ranked.shape}"
        for path, best in zip(files, ranked, strict=True):
            found[path.name][name] = [element.decode() for element in np.ravel(best)]
    print(json.dumps(found))


def field(message: Any, name: str) -> Any:
    """A field of a message, or of the table that it is over HTTP."""
    return message[name] if isinstance(message, dict) else getattr(message, name)


if __name__ == "__main__":
    main()
