"""Write `params.schema.json`, by which editors explain and check params.yaml: `python tools/schema.py`.

Keys, types and ranges are those of `bnstudy.params`; what a key means is its comment in params.yaml. An editor that
knows YAML schemas finds it by the first line of params.yaml.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bnstudy.files import write
from bnstudy.params import PARAMS_FILE, Params

SCHEMA = Path("params.schema.json")
KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<rest>.*)")


class WithoutTitles(GenerateJsonSchema):
    """An editor would show "Batch Size" beside `batch_size`."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def comments(text: str) -> dict[tuple[str, ...], str]:
    """What a params file says of each key: behind it, or in the lines directly above it."""
    said, path, above = {}, list[str](), list[str]()
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip(" #"))
            continue
        if found := KEY.fullmatch(line):
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            behind = found["rest"].partition(" # ")[2].strip()
            if comment := behind or " ".join(above):
                said[tuple(path)] = comment
        above = []
    return said


def schema(text: str) -> dict[str, Any]:
    """The JSON schema of a params file, with the comments of `text` as descriptions."""
    whole = Params.model_json_schema(schema_generator=WithoutTitles)
    for path, comment in comments(text).items():
        at = whole
        for key in path:
            at = whole["$defs"][at["$ref"].rpartition("/")[2]] if "$ref" in at else at
            at = at.get("properties", {}).get(key, {})  # a network's name is no property
        at["description"] = comment
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "description": "What a reader may change."}
    return dialect | whole


def main() -> None:
    text = json.dumps(schema(PARAMS_FILE.read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
    write(SCHEMA, f"{text}\n".encode())


if __name__ == "__main__":
    main()
