"""Tensors as the Open Inference Protocol writes them: in JSON, or as bytes behind it.

The second is the binary data extension, which the clients of Triton use unless told not
to: numbers little-endian, texts each behind its length as four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from ray_jobs.serving.problem import Problem

BYTES = "BYTES"
LONGEST_NUMBER = 20  # digits
NUMBERS = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"), "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"), "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The document of a request, and the bytes behind it."""

    document: dict[str, Any]
    beyond: bytes


def split(data: bytes, header_length: bytes | None) -> Asked:
    """A body as its document and what comes after it; raises Problem (400) for another."""
    length = len(data)
    if header_length is not None:
        digits = header_length.isdigit() and len(header_length) < LONGEST_NUMBER
        if not digits or int(header_length) > length:
            raise Problem(400, "inference-header-content-length: not a length within the body")
        length = int(header_length)
    try:
        document = orjson.loads(data[:length])
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise refused("", "expected an object with inputs")
    return Asked(document, data[length:])


def columns(asked: Asked, most_rows: int) -> dict[str, list[Any]]:
    """The inputs by name, one value for each row; raises Problem (422) that says what is wrong."""
    inputs = asked.document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise refused("/inputs", "expected a list of tensors")
    found: dict[str, list[Any]] = {}
    begin = 0
    for number, tensor in enumerate(inputs):
        where = f"/inputs/{number}"
        name, rows = _head(tensor, where, most_rows)
        size = _parameters(tensor, where).get("binary_data_size")
        if size is None:
            values = _listed(tensor, rows, where)
        else:
            if type(size) is not int or not 0 <= size <= len(asked.beyond) - begin:
                raise refused(f"{where}/parameters/binary_data_size", "not so much in the body")
            values = _packed(tensor["datatype"], asked.beyond[begin : begin + size], rows, where)
            begin += size
        if name in found:
            raise refused(f"{where}/name", f"{name[:100]!r} stands there twice")
        found[name] = values
    if len({len(values) for values in found.values()}) != 1:
        raise refused("/inputs", "the tensors differ in their number of rows")
    return found


def written(document: dict[str, Any], tensors: dict[str, Any], binary: set[str]) -> tuple[Any, int]:
    """A response with float64 outputs, as bytes, and how many of them are its document.

    0 says that all of them are.
    """
    outputs, behind = [], b""
    for name, values in tensors.items():
        told: dict[str, Any] = {"name": name, "datatype": "FP64", "shape": [len(values)]}
        if name in binary:
            data = np.asarray(values, "<f8").tobytes()
            told["parameters"] = {"binary_data_size": len(data)}
            behind += data
        else:
            told["data"] = np.asarray(values, float).tolist()
        outputs.append(told)
    head = orjson.dumps({**document, "outputs": outputs})
    return head + behind, len(head) if behind else 0


def _head(tensor: Any, where: str, most_rows: int) -> tuple[str, int]:
    """Name and number of rows of an input."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise refused(where, "expected an object with name, datatype, shape and data")
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in {BYTES, *NUMBERS}:
        known = ", ".join([BYTES, *NUMBERS])
        raise refused(f"{where}/datatype", f"expected one of {known}")
    shape = tensor.get("shape")
    sizes = shape if isinstance(shape, list) and shape else [-1]
    if any(type(size) is not int or size < 0 for size in sizes) or set(sizes[1:]) - {1}:
        raise refused(f"{where}/shape", "expected [rows] or [rows, 1]")
    if not 1 <= sizes[0] <= most_rows:
        raise refused(f"{where}/shape", f"expected 1 to {most_rows} rows; send more in parts")
    return tensor["name"], prod(sizes)


def _parameters(tensor: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = tensor.get("parameters", {})
    if not isinstance(parameters, dict):
        raise refused(f"{where}/parameters", "expected an object")
    return parameters


def _listed(tensor: dict[str, Any], rows: int, where: str) -> list[Any]:
    values = tensor.get("data")
    if isinstance(values, list) and values and isinstance(values[0], list):
        values = [value for row in values for value in (row if isinstance(row, list) else [row])]
    if not isinstance(values, list) or len(values) != rows:
        raise refused(f"{where}/data", f"expected a list of {rows} values, as the shape says")
    fits = _is_text if tensor["datatype"] == BYTES else _is_number
    for number, value in enumerate(values):
        if value is not None and not fits(value):
            raise refused(f"{where}/data/{number}", f"not of datatype {tensor['datatype']}")
    return values


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _packed(datatype: str, data: bytes, rows: int, where: str) -> list[Any]:
    if datatype == BYTES:
        return _texts(data, rows, where)
    kind = NUMBERS[datatype]
    if len(data) != rows * kind.itemsize:
        raise refused(where, f"{len(data)} bytes are not {rows} values of {datatype}")
    found: list[Any] = np.frombuffer(data, kind).tolist()
    return found


def _texts(data: bytes, rows: int, where: str) -> list[str]:
    found: list[str] = []
    begin = 0
    try:
        while begin < len(data):
            (size,) = struct.unpack_from("<I", data, begin)
            begin += 4 + size
            if begin > len(data):
                raise refused(where, "a text is cut short")
            found.append(data[begin - size : begin].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise refused(where, f"no texts in UTF-8, each behind its length: {error}") from error
    if len(found) != rows:
        raise refused(where, f"{len(found)} texts, and {rows} rows by its shape")
    return found


def wants_binary(document: dict[str, Any], names: Sequence[str]) -> tuple[list[str], set[str]]:
    """The outputs asked for, all where none is named, and those that are to be binary."""
    parameters = document.get("parameters", {})
    usual = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = document.get("outputs") or [{"name": name} for name in names]
    if not isinstance(asked, list):
        raise refused("/outputs", "expected a list")
    chosen: list[str] = []
    binary: set[str] = set()
    for number, output in enumerate(asked):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in names:
            raise refused(f"/outputs/{number}", f"expected one of {', '.join(names)}")
        chosen.append(name)
        if _parameters(output, f"/outputs/{number}").get("binary_data", usual) is True:
            binary.add(name)
    return chosen, binary


def refused(pointer: str, detail: str) -> Problem:
    """A Problem with where it is."""
    shown = pointer or "the whole request"
    return Problem(422, f"{shown}: {detail}", [{"pointer": pointer, "detail": detail}])
